"""The transformer encoder: tokens in, tokens out, same shape.

Pre-norm; LayerNorm without bias (fused everywhere; torch's RMSNorm takes 2.6 times as long on a CPU
and stores three times as much for the backward pass); no biases in the layers; initial weights have
standard deviation 1/sqrt(inputs), and those that write into the residual stream are smaller by
sqrt(2 * layers), so that its variance does not grow with depth; dropout on both residual branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.nn.attention import AttentionChoice, attend
from vcell.nn.graph_loss import GraphLoss, attend_apart
from vcell.nn.patterns import Graph, Pattern, pattern_for
from vcell.nn.presets import PRESETS, AttentionName, Preset

N_GLOBAL = 2  # [CLS] and [PERT] come first, and attend to and are attended by every token


class SelfAttention(nn.Module):
    """Attention of tokens to each other, with its projections."""

    def __init__(self, preset: Preset, name: AttentionName) -> None:
        super().__init__()
        self.n_heads, self.name = preset.n_heads, name
        self.qkv = nn.Linear(preset.d_model, 3 * preset.d_model, bias=False)
        self.out = nn.Linear(preset.d_model, preset.d_model, bias=False)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, H, T, D)."""
        n_batch, n_tokens, _ = x.shape
        q, k, v = self.qkv(x).view(n_batch, n_tokens, 3, self.n_heads, -1).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, valid: Tensor | None, pattern: Pattern | None) -> Tensor:
        """Attend: (B, T, d) to (B, T, d)."""
        q, k, v = self.heads(x)
        mixed = attend(q, k, v, name=self.name, valid=valid, pattern=pattern)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return out

    def regularised(
        self, x: Tensor, valid: Tensor | None, graphs: GraphLoss
    ) -> tuple[Tensor, Tensor]:
        """Attend to all tokens, and return the heads' divergences from their graphs, (B, K)."""
        q, k, v = self.heads(x)
        mixed, lse = attend_apart(q, k, v, slice(N_GLOBAL, x.shape[1]), valid)
        far = graphs.each(q[:, :, N_GLOBAL:], k[:, :, N_GLOBAL:], lse[:, :, N_GLOBAL:])
        return self.out(mixed.transpose(1, 2).reshape(x.shape)), far


class EncoderBlock(nn.Module):
    """Attention, then a feed-forward layer, each with a residual connection."""

    def __init__(self, preset: Preset, name: AttentionName) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(preset.d_model, bias=False)
        self.attention = SelfAttention(preset, name)
        self.norm_mlp = nn.LayerNorm(preset.d_model, bias=False)
        self.up = nn.Linear(preset.d_model, preset.d_ff, bias=False)
        self.down = nn.Linear(preset.d_ff, preset.d_model, bias=False)
        self.dropout = nn.Dropout(preset.dropout)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        pattern: Pattern | None = None,
        graphs: GraphLoss | None = None,
    ) -> Any:
        """Return (B, T, d) tokens; with `graphs` also the divergences of `regularised`."""
        far = None
        if graphs is None:
            mixed = self.attention(self.norm_attention(x), valid, pattern)
        else:
            mixed, far = self.attention.regularised(self.norm_attention(x), valid, graphs)
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_mlp(x)))))
        return x if far is None else (x, far)


class Encoder(nn.Module):
    """A stack of blocks and a final norm: (B, T, d_model) to the same shape.

    Parameters
    ----------
    preset
        Sizes, or the name of a preset.
    attention
        The attention back end: a choice from `vcell.nn.attention.choose`, or a name.
    graph
        Pairs of genes that may attend to each other, for ``sparse``; node i is token N_GLOBAL + i.
        A shorter sequence uses the first nodes.
    window
        How far tokens attend to either side, for ``local``.
    """

    def __init__(
        self,
        preset: Preset | str,
        attention: AttentionChoice | AttentionName = "sdpa",
        *,
        graph: Graph | None = None,
        window: int = 128,
    ) -> None:
        super().__init__()
        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        self.name: AttentionName = attention if isinstance(attention, str) else attention.name
        if self.name == "sparse" and graph is None:
            message = "attention sparse needs a graph of gene pairs"
            raise ValueError(message)
        self.graph, self.window = graph, window
        self.blocks = nn.ModuleList(
            EncoderBlock(self.preset, self.name) for _ in range(self.preset.n_layers)
        )
        self.norm = nn.LayerNorm(self.preset.d_model, bias=False)
        self._patterns: dict[tuple[int, torch.device], Pattern] = {}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from torch's generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
        for block in self.layers:
            for weight in (block.attention.out.weight, block.down.weight):
                weight.mul_((2 * self.preset.n_layers) ** -0.5)

    @property
    def layers(self) -> Iterator[EncoderBlock]:
        """The blocks, typed."""
        return (cast("EncoderBlock", block) for block in self.blocks)

    def pattern(self, n_tokens: int, device: torch.device) -> Pattern | None:
        """Return the attention pattern, made once per length; None if all attend to all."""
        if self.name not in ("sparse", "local"):
            return None
        key = (n_tokens, device)
        if key not in self._patterns:
            made: Pattern = self._new_pattern(n_tokens)
            self._patterns[key] = made.to(device)
        return self._patterns[key]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _new_pattern(self, n_tokens: int) -> Pattern:
        # a graph break of a compiled model, once per length
        return pattern_for(n_tokens, N_GLOBAL, graph=self.graph, window=self.window)

    def attention_maps(
        self, x: Tensor, *, rows: Sequence[int] | None = None, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return each layer's (B, rows, T) weights, averaged over heads; see `vcell.nn.maps`."""
        from vcell.nn.maps import attention_maps

        return attention_maps(self, x, rows=rows, valid=valid)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Parameters
        ----------
        x
            (B, T, d_model)
        valid
            (B, T), False at padding.
        """
        pattern = self.pattern(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, valid, pattern)
        x = self.norm(x)
        return x

    def regularised(
        self, x: Tensor, graphs: Callable[[int], GraphLoss], valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode tokens, and return the divergences of the first layer's heads from their graphs.

        This needs attention over all pairs of tokens.

        Parameters
        ----------
        x, valid
            As in `forward`.
        graphs
            Function from the number of genes to the loss.

        Returns
        -------
        tuple of Tensor
            (B, T, d_model), and (B, K) mean divergences of the rows of each graph.
        """
        first, *others = self.layers
        x, far = first(x, valid, None, graphs(x.shape[1] - N_GLOBAL))
        for block in others:
            x = block(x, valid, None)
        return self.norm(x), far


def zero_head(width: int) -> nn.Linear:
    """Return a linear map to one number, initialised to 0."""
    head = nn.Linear(width, 1, bias=False)
    nn.init.zeros_(head.weight)
    return head
