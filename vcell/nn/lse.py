"""Attention that also returns the log-sum-exp of each row's scores, with gradients of both.

With weights P, the gradient of a row's log-sum-exp by its scores is P. So where the backward pass
has P (dP - delta), with delta the sum of dO * O, it needs P (dP - (delta - dlse)). Blocked
attention does that on any device. torch's fused CPU kernel returns a log-sum-exp without a
gradient, but it computes delta from its arguments: with one more column, O' = [O, -dlse] and dO' =
[dO, 1], it subtracts dlse itself, and V' = [V, 0] leaves dP unchanged. It takes half the time of
blocks. Its products are fastest at widths that are multiples of 16, so columns of 0 are added up to
there: with heads of 8 and the extra column, its backward pass then takes less than half the time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vcell.nn.blocked import blocked_attention_and_lse

_FORWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_BACKWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


_MULTIPLE = 16  # widths for which the CPU kernel is fastest: the lanes of AVX-512


def widened(x: Tensor, more: int = 0) -> Tensor:
    """Append columns of 0, up to a multiple of 16 that includes `more` columns."""
    width = x.shape[-1]
    return F.pad(x, (0, -(-(width + more) // _MULTIPLE) * _MULTIPLE - width))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to all keys by torch's kernel, at the width at which it is fastest."""
    width = q.shape[-1]
    if q.device.type != "cpu" or width % _MULTIPLE == 0:
        return F.scaled_dot_product_attention(q, k, v)
    wide_q, wide_k, wide_v = (widened(x) for x in (q, k, v))
    wide = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=width**-0.5)
    return wide[..., :width]


def attention_and_lse(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to all keys; also return the log-sum-exp of each row. Both have gradients.

    Parameters
    ----------
    q
        (B, H, T, D); scores are scaled by D ** -0.5.
    k, v
        (B, H, S, D) and (B, H, S, V); there may be more or fewer keys than queries.
    valid
        (B, S), False for keys that nobody attends to.

    Returns
    -------
    tuple of Tensor
        (B, H, T, V), and (B, H, T) in float32 or better.
    """
    if _fused(q, k, v, valid):
        return _Fused.apply(q, k, v)  # type: ignore[no-any-return, no-untyped-call]
    return blocked_attention_and_lse(q, k, v, valid)


def _fused(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> bool:
    """Whether torch's CPU kernel supports the inputs."""
    return (
        _FORWARD is not None and _BACKWARD is not None and valid is None
        and q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
        and q.dtype == k.dtype == v.dtype and q.shape[-1] == v.shape[-1]
        and min(q.numel(), k.numel()) > 0 and not torch.compiler.is_compiling()
    )  # fmt: skip


class _Fused(torch.autograd.Function):
    """torch's fused attention for CPUs, with a gradient for the log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the log-sum-exp."""
        assert _FORWARD is not None
        wide = [widened(x) for x in (q, k, v)]
        out, lse = _FORWARD(*wide, scale=q.shape[-1] ** -0.5)
        out, lse = out[..., : q.shape[-1]], lse.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of queries, keys and values."""
        assert _BACKWARD is not None
        dout, dlse = slopes
        q, k, v, out, lse = ctx.saved_tensors
        width = q.shape[-1]
        dout, out = widened(dout, 1), widened(out, 1)
        dout[..., width], out[..., width] = 1, -dlse
        found = _BACKWARD(
            dout, *(widened(x, 1) for x in (q, k, v)), out,
            lse, 0.0, False, scale=width**-0.5,  # noqa: FBT003
        )  # fmt: skip
        return tuple(x[..., :width] for x in found)
