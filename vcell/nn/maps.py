"""Attention weights after training, recomputed some rows at a time.

The forward pass never stores weights; nothing here runs in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vcell.nn.linear import features

if TYPE_CHECKING:
    from vcell.nn.encoder import Encoder

_BUDGET = 16 << 20  # weights at once: 64 MiB in float32


@torch.no_grad()
def attention_maps(
    encoder: Encoder, x: Tensor, *, rows: Sequence[int] | None = None, valid: Tensor | None = None
) -> list[Tensor]:
    """Return each layer's attention weights, averaged over heads.

    Parameters
    ----------
    encoder, x, valid
        The model and its input, as in `Encoder.forward`.
    rows
        Tokens whose attention to return; by default all, which takes T x T per layer.

    Returns
    -------
    list of Tensor
        (B, rows, T) for each layer; each row sums to 1.
    """
    wanted = torch.arange(x.shape[1]) if rows is None else torch.as_tensor(rows)
    return [
        torch.cat([part.mean(1) for part in _weights(encoder, q, k, wanted, valid)], 1)
        for q, k in _layers(encoder, x, valid)
    ]


@torch.no_grad()
def importance(
    encoder: Encoder,
    x: Tensor,
    *,
    direction: Literal["from", "to"] = "from",
    tokens: Sequence[int] = (0, 1),
    valid: Tensor | None = None,
) -> Tensor:
    """Return (T,) scores: attention between each token and `tokens`, by default [CLS] and [PERT].

    Averaged over `tokens`, samples, heads and layers. Padding counts as attending to nothing.

    Parameters
    ----------
    direction
        ``from``: how much `tokens` attend to each; ``to``: how much each attends to `tokens`.
    """
    chosen = torch.as_tensor(tokens)
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for q, k in _layers(encoder, x, valid):
        if direction == "from":
            parts = [part.sum((0, 1, 2)) for part in _weights(encoder, q, k, chosen, valid)]
            total += torch.stack(parts).sum(0).cpu() / len(chosen)
        else:
            all_rows = torch.arange(x.shape[1])
            there = 1 if valid is None else valid[:, None, :].float()
            parts = [
                part[..., chosen.to(part.device)].mean(-1)
                for part in _weights(encoder, q, k, all_rows, valid)
            ]
            total += (torch.cat(parts, 2) * there).sum((0, 1)).cpu()
    return (total / (len(x) * encoder.preset.n_heads * len(encoder.blocks))).float()


def _layers(encoder: Encoder, x: Tensor, valid: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the queries and keys of each layer, (B, H, T, D)."""
    pattern = encoder.pattern(x.shape[1], x.device)
    for block in encoder.layers:
        q, k, _ = block.attention.heads(block.norm_attention(x))
        yield q, k
        x = block(x, valid, pattern)


def _weights(
    encoder: Encoder, q: Tensor, k: Tensor, rows: Tensor, valid: Tensor | None
) -> Iterator[Tensor]:
    """Yield (B, H, some rows, T) float32 weights, a bounded number at a time."""
    n_batch, n_heads, n_tokens, _ = q.shape
    pattern = encoder.pattern(n_tokens, q.device)
    step = max(1, _BUDGET // (n_batch * n_heads * n_tokens))
    for start in range(0, len(rows), step):
        some = rows[start : start + step].to(q.device)
        there = None if valid is None else valid[:, None, None, :]
        if pattern is not None:
            seen = pattern.allowed(some)
            there = seen if there is None else seen & there
        yield _normalised(encoder.name, q[:, :, some].float(), k.float(), there)


def _normalised(name: str, q: Tensor, k: Tensor, there: Tensor | None) -> Tensor:
    if name == "linear":
        weights = features(q) @ features(k).transpose(-2, -1)
        weights = weights if there is None else weights * there
        total = weights.sum(-1, keepdim=True)
        return weights / total.clamp_min(torch.finfo(weights.dtype).tiny)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if there is not None:
        scores = scores.masked_fill(~there, -torch.inf)
    return torch.nan_to_num(scores.softmax(-1))  # zeros if there is nothing to attend to
