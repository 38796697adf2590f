"""Softmax attention in blocks of rows: only what one block reads is in memory.

Serves ``chunked`` (every row reads every key), ``sparse`` and ``local``. The forward pass stores
the output and each row's log-sum-exp; the backward pass recomputes the weights. Rows see all their
keys at once, so no running maximum is needed: memory is O(rows of a block x keys).
`blocked_attention_and_lse` also returns the log-sum-exp; its gradient is subtracted from delta, see
`vcell.nn.lse`. It is an operator of `torch.library`, so that torch.compile, FLOP counters and
checkpointing handle it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vcell.nn.patterns import everybody

if TYPE_CHECKING:
    from vcell.nn.patterns import Pattern

_LN2 = math.log(2)
_BUDGET = {"cpu": 1 << 20, "cuda": 256 << 20}  # bytes of scores at once: a CPU's L2 cache


def blocked_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, valid: Tensor | None = None
) -> Tensor:
    """Attend along a pattern; arguments as in `vcell.nn.attention.attend`."""
    p = pattern.to(q.device)
    return cast("Tensor", _forward(q, k, v, valid, p.rows, p.keys, p.hits, p.starts)[0])


def blocked_attention_and_lse(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to all keys; also return the log-sum-exp. See `vcell.nn.lse`, which chooses this."""
    p = everybody(q.shape[2], q.device, n_rows=_rows(k.shape[2], q.device))
    return cast("tuple[Tensor, Tensor]", _forward(q, k, v, valid, p.rows, p.keys, p.hits, p.starts))


def _rows(n_keys: int, device: torch.device) -> int:
    """Return the rows per block, so that a block fits the budget."""
    return max(16, min(512, _BUDGET.get(device.type, _BUDGET["cuda"]) // 4 // max(n_keys, 1)))


@torch.library.custom_op("vcell::blocked_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    valid: Tensor | None,
    rows: Tensor,
    keys: Tensor,
    hits: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor]:
    out, lse = _out(q, v), q.new_empty(q.shape[:3], dtype=_exact(q))
    with torch.autocast(q.device.type, enabled=False):
        for part in _parts(q, k, valid, rows, keys, hits, starts):
            weights = part.scores(q, k)
            highest = weights.amax(-1, keepdim=True)
            highest.masked_fill_(highest == -torch.inf, 0.0)  # rows without a key
            total = weights.sub_(highest).exp2_().sum(-1, keepdim=True)
            part.put(lse, (total.log2() + highest)[..., 0] * _LN2)
            mixed = _product(weights.to(v.dtype), part.keys_of(v))
            part.put(out, mixed.div_(total.clamp_min_(torch.finfo(total.dtype).tiny)))
    return out, lse


@_forward.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _out(q, v), q.new_empty(q.shape[:3], dtype=_exact(q))


@torch.library.custom_op("vcell::blocked_attention_backward", mutates_args=())
def _backward(  # noqa: PLR0913, PLR0917 - an operator's arguments are tensors, one by one
    dout: Tensor,
    dlse: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    valid: Tensor | None,
    rows: Tensor,
    keys: Tensor,
    hits: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    exact = _exact(q)
    dq = _like(q)
    dk, dv = (torch.zeros_like(_like(x), dtype=exact) for x in (k, v))
    scale = q.shape[-1] ** -0.5
    with torch.autocast(q.device.type, enabled=False):
        delta = (dout.to(exact) * out.to(exact)).sum(-1) - dlse.to(exact)  # (B, H, T)
        for part in _parts(q, k, valid, rows, keys, hits, starts):
            weights = part.scores(q, k)
            part.weigh(weights, lse)
            do = part.rows_of(dout)
            part.add(dv, weights.to(v.dtype).transpose(1, 2), do)
            slopes = _product(do, part.keys_of(v).transpose(1, 2))
            slopes.sub_(part.rows_of(delta)[..., None]).mul_(weights)
            slopes = slopes.to(k.dtype)
            part.put(dq, _product(slopes, part.keys_of(k)).mul_(scale))
            part.add(dk, slopes.transpose(1, 2), part.rows_of(q) * scale)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


@_backward.register_fake
def _(
    _dout: Tensor, _dlse: Tensor, _out: Tensor, _lse: Tensor, q: Tensor, k: Tensor, v: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _like(q), _like(k), _like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs)


def _differentiate(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(dout, dlse, *ctx.saved_tensors), None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)


class _Part:
    """Some rows of some heads, and the keys they read."""

    def __init__(
        self, heads: slice, rows: Tensor, keys: Tensor | None, allowed: Tensor | None
    ) -> None:
        self.heads, self.rows, self.keys, self.allowed = heads, rows, keys, allowed

    def rows_of(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)[self.heads].index_select(1, self.rows)

    def keys_of(self, x: Tensor) -> Tensor:
        x = x.flatten(0, 1)[self.heads]
        return x if self.keys is None else x.index_select(1, self.keys)

    def put(self, x: Tensor, values: Tensor) -> None:
        x.flatten(0, 1)[self.heads].index_copy_(1, self.rows, values.to(x.dtype))

    def add(self, x: Tensor, a: Tensor, b: Tensor) -> None:
        """Add the product of two matrices to the keys' rows of `x`."""
        x = x.flatten(0, 1)[self.heads]
        if self.keys is not None:
            x.index_add_(1, self.keys, _product(a, b).to(x.dtype))
        elif a.dtype == x.dtype:
            x.baddbmm_(a, b)
        else:
            x.add_(_product(a, b))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Return (heads, rows, keys) for powers of 2, -inf where not allowed.

        `exp2` takes a third of the time of `exp` on a CPU.
        """
        rows = self.rows_of(q) * (q.shape[-1] ** -0.5 / _LN2)
        scores = _product(rows, self.keys_of(k).transpose(1, 2))
        return scores if self.allowed is None else scores.masked_fill_(~self.allowed, -torch.inf)

    def weigh(self, scores: Tensor, lse: Tensor) -> None:
        """Turn scores into weights in place; all 0 for rows without a key."""
        total = self.rows_of(lse)[..., None] / _LN2
        scores.sub_(total.masked_fill(total == -torch.inf, torch.inf)).exp2_()


def _parts(
    q: Tensor,
    k: Tensor,
    valid: Tensor | None,
    rows: Tensor,
    keys: Tensor,
    hits: Tensor,
    starts: Tensor,
) -> Iterator[_Part]:
    """Iterate over the blocks, with as many heads at a time as the budget allows."""
    n_heads, n_all = q.shape[1], q.shape[0] * q.shape[1]
    budget = _BUDGET.get(q.device.type, _BUDGET["cuda"]) // 4
    edges = starts.tolist()
    for (r0, k0, h0), (r1, k1, h1) in pairwise(edges):
        those = None if k0 == k1 else keys[k0:k1]
        width = k.shape[2] if those is None else k1 - k0
        mask = None
        if those is not None:
            mask = torch.zeros((r1 - r0) * width, dtype=torch.bool, device=q.device)
            mask = mask.index_fill_(0, hits[h0:h1].long(), 1).view(1, r1 - r0, width)
        step = max(1, budget // ((r1 - r0) * width))
        for first in range(0, n_all, step):
            heads = slice(first, min(first + step, n_all))
            allowed = mask
            if valid is not None:
                sample = torch.arange(heads.start, heads.stop, device=q.device) // n_heads
                there = valid[sample] if those is None else valid[sample][:, those]
                allowed = there[:, None, :] if mask is None else mask & there[:, None, :]
            yield _Part(heads, rows[r0:r1], those, allowed)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices; half precision is summed and returned in float32."""
    if a.element_size() >= 4:
        return torch.bmm(a, b)
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


def _out(q: Tensor, v: Tensor) -> Tensor:
    return torch.empty((*q.shape[:3], v.shape[3]), dtype=q.dtype, device=q.device)


def _like(q: Tensor) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def _exact(q: Tensor) -> torch.dtype:
    """Return the precision of sums: float32, or that of the input if higher."""
    return torch.float32 if q.element_size() < 4 else q.dtype


def _flops(products: int) -> Any:
    def count(*arguments: Any, **_: Any) -> int:
        q, k, starts = arguments[-8], arguments[-7], arguments[-1]
        n_rows, n_keys, _hits = starts.diff(dim=0).unbind(1)
        scores = int((n_rows * torch.where(n_keys == 0, k.shape[2], n_keys)).sum())
        return products * 2 * int(q.shape[0] * q.shape[1] * q.shape[3]) * scores

    return count


register_flop_formula(torch.ops.vcell.blocked_attention, get_raw=True)(_flops(2))
register_flop_formula(torch.ops.vcell.blocked_attention_backward, get_raw=True)(_flops(5))
