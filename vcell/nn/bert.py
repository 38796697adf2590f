"""A post-norm BERT encoder on packed sequences: no padding, no head, only the requested layers.

Tokens of all sequences are concatenated, ``(N, d)``, so that products with weights use one long
matrix; only attention works per sequence. Sequences of equal length are processed as a batch.
`MatmulPrecision` rounds the operands of each product; the residual stream and LayerNorm stay in
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.nn import cpu_layers
from vcell.nn.attention import attend

PrecisionName = Literal["fp32", "tf32", "fp16", "bf16"]
_TYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """The sizes of an encoder."""

    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    n_positions: int
    n_tokens: int
    eps: float = 1e-12

    def flops(self, length: int, n_layers: int | None = None) -> float:
        """Return floating-point operations of one sequence, without a head."""
        layers = self.n_layers if n_layers is None else n_layers
        a_token = 8 * self.d_model**2 + 4 * self.d_model * self.d_ff + 4 * length * self.d_model
        return float(layers * length * a_token)


@dataclass(frozen=True)
class Lengths:
    """Lengths of the packed sequences; equal lengths are processed as a batch."""

    each: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        """Store the lengths of sequences."""
        return cls(tuple(int(length) for length in lengths))

    @property
    def same(self) -> int:
        """The common length of all sequences, or 0."""
        return self.each[0] if len(set(self.each)) == 1 else 0


class MatmulPrecision:
    """Precision of products. On a CPU half precision is emulated: rounded, then float32.

    With `native`, a CPU computes in half precision itself: fast on few CPUs, very slow on most.
    """

    def __init__(self, name: PrecisionName, device: torch.device, *, native: bool = False) -> None:
        self.name, self.type = name, _TYPES[name]
        self.rounds = self.type != torch.float32
        self.emulated = self.rounds and device.type == "cpu" and not native

    def __call__(self, x: Tensor) -> Tensor:
        """Round an operand of a product."""
        if not self.rounds:
            return x
        return x.to(self.type).float() if self.emulated else x.to(self.type)


class BertBlock(nn.Module):
    """Attention, then a feed-forward layer, each with a residual and LayerNorm."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        d = shape.d_model
        self.n_heads = shape.n_heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_attention = nn.LayerNorm(d, eps=shape.eps)
        self.up = nn.Linear(d, shape.d_ff)
        self.down = nn.Linear(shape.d_ff, d)
        self.norm_output = nn.LayerNorm(d, eps=shape.eps)


class Bert(nn.Module):
    """Embeddings and blocks of a BERT; `encode` runs them.

    Parameters
    ----------
    shape
        Sizes of the encoder.

    Attributes
    ----------
    numpy_products
        Whether numpy may run the layers on a CPU (`vcell.nn.cpu_layers`); else torch does.
    """

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.n_tokens, shape.d_model)
        self.positions = nn.Embedding(shape.n_positions, shape.d_model)
        self.norm = nn.LayerNorm(shape.d_model, eps=shape.eps)
        self.blocks = nn.ModuleList(BertBlock(shape) for _ in range(shape.n_layers))
        self.precision = MatmulPrecision("fp32", torch.device("cpu"))
        self.numpy_products = True
        self._rounded: dict[int, tuple[Tensor, Tensor]] = {}

    def set_precision(self, name: PrecisionName, *, native: bool = False) -> None:
        """Set the precision of products."""
        self.precision = MatmulPrecision(name, self.tokens.weight.device, native=native)
        self._rounded.clear()
        if self.tokens.weight.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the input of the first block for tokens at positions, (N, d)."""
        out: Tensor = self.norm(self.tokens(tokens) + self.positions(positions))
        return out

    def encode(self, tokens: Tensor, lengths: Lengths, n_layers: int) -> Tensor:
        """Return the hidden states, (N, d), of packed tokens after some layers."""
        places = [torch.arange(length, device=tokens.device) for length in lengths.each]
        x = self.embed(tokens, torch.cat(places) if places else tokens)
        return self.layers(x, lengths, 0, n_layers)

    def layers(
        self, x: Tensor, lengths: Lengths, start: int, stop: int, mixed: Tensor | None = None
    ) -> Tensor:
        """Run blocks `start` to `stop`, (N, d); `mixed` is the first one's attention, if known."""
        if start < stop and cpu_layers.suits(self, x):
            return cpu_layers.run(self, x, lengths, start, stop, mixed)
        if x.device.type == "cpu" and len(lengths.each) > 1 and not lengths.same:
            # one sequence at a time stays in the cache, and needs no copy
            each = list(lengths.each)
            known = [None] * len(each) if mixed is None else torch.split(mixed, each)
            parts = zip(torch.split(x, each), known, strict=True)
            return torch.cat(
                [self.layers(own, Lengths((len(own),)), start, stop, m) for own, m in parts]
            )
        for number in range(start, stop):
            block = self.block(number)
            if mixed is None:
                mixed = self.mix(self.heads(block, x), lengths)
            x, mixed = self.finish(block, x, mixed), None
        return x

    def block(self, number: int) -> BertBlock:
        """Return one of the blocks."""
        block = self.blocks[number]
        assert isinstance(block, BertBlock)
        return block

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Multiply by a layer's weights, in the chosen precision, or call a quantised layer."""
        if not isinstance(layer, nn.Linear):
            quantised: Tensor = layer(x)
            return quantised
        if not self.precision.rounds:
            return F.linear(x, layer.weight, layer.bias)
        kept = self._rounded.get(id(layer))
        if kept is None:
            kept = self.precision(layer.weight.detach()), self.precision(layer.bias.detach())
            self._rounded[id(layer)] = kept
        return self.precision(F.linear(self.precision(x), *kept))

    def heads(self, block: BertBlock, x: Tensor) -> Tensor:
        """Return queries, keys and values, (N, 3, heads, width)."""
        return self.linear(block.qkv, x).view(len(x), 3, block.n_heads, -1)

    def mix(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        """Let the tokens of each sequence attend to each other; (N, d)."""
        n, _, heads, width = qkv.shape
        if length := lengths.same:
            batch = qkv.view(-1, length, 3, heads, width).permute(2, 0, 3, 1, 4)
            q, k, v = batch.unbind(0)
            return attend(q, k, v).transpose(1, 2).reshape(n, heads * width)
        if qkv.device.type == "cuda" and self.precision.rounds:
            return _packed_attention(qkv, lengths)
        parts = []
        for own in torch.split(qkv, list(lengths.each)):
            q, k, v = own.permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
            parts.append(attend(q, k, v)[0].transpose(0, 1).reshape(-1, heads * width))
        return torch.cat(parts)

    def finish(self, block: BertBlock, x: Tensor, mixed: Tensor) -> Tensor:
        """Compute the rest of a block, which is token by token."""
        # in place: new memory costs as much as the arithmetic
        inner = self.linear(block.out, mixed).float().add_(x)
        x = block.norm_attention(inner)
        inner = self.linear(block.down, self.linear(block.up, x).relu_()).float().add_(x)
        out: Tensor = block.norm_output(inner)
        return out


def _packed_attention(qkv: Tensor, lengths: Lengths) -> Tensor:
    """Attend within sequences of mixed lengths at once, by torch's half-precision CUDA kernel."""
    from torch.nn.attention.varlen import varlen_attn

    each = torch.tensor(lengths.each, dtype=torch.int32, device=qkv.device)
    starts = F.pad(each.cumsum(0, dtype=torch.int32), (1, 0))
    q, k, v = qkv.unbind(1)
    longest = max(lengths.each)
    out = varlen_attn(
        q.contiguous(), k.contiguous(), v.contiguous(), starts, starts, longest, longest
    )
    assert isinstance(out, Tensor)
    return out.reshape(len(qkv), -1)
