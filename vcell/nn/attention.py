"""One function for attention, `attend`, and one that chooses its implementation, `choose`.

``flash``     flash-attn's kernels (the extra ``vcell[flash]``): CUDA, half precision
``sdpa``      torch's own: fused kernels on GPUs and CPUs, none of which stores T x T
``chunked``   blocks of rows, recomputed in the backward pass: any device and precision
``sparse``    only pairs of a graph of genes, and the global tokens
``local``     only neighbours in the order of the tokens, and the global tokens
``linear``    no softmax: time and memory proportional to the number of tokens

The first three compute the same numbers; the others are different models. Attention weights have no
dropout: no fused CPU kernel supports it, and the encoder applies dropout to its residuals instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vcell.errors import UserError
from vcell.gpu.accelerator import accelerator
from vcell.nn.blocked import blocked_attention
from vcell.nn.linear import linear_attention
from vcell.nn.patterns import Pattern, everybody
from vcell.nn.presets import AttentionName

_HALF = (torch.float16, torch.bfloat16)
_FLASH_HEAD = 256  # widest head of flash-attn


@dataclass(frozen=True)
class AttentionChoice:
    """The attention back end, and the reason for it, to be printed."""

    name: AttentionName
    reason: str

    def __str__(self) -> str:
        return f"attention: {self.name} ({self.reason})"


def choose(
    requested: str,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    n_tokens: int,
    head_dim: int,
) -> AttentionChoice:
    """Choose the attention back end.

    Parameters
    ----------
    requested
        ``auto``, or a name; an error if that cannot run here.
    device, dtype
        The device, and the precision of queries and keys: autocast's if it is on.
    n_tokens, head_dim
        Length of a sequence and width of a head.
    """
    device = torch.device(device)
    if requested == "flash":
        missing = _flash_misses(device, dtype, head_dim)
        if missing:
            raise UserError(f"attention flash needs {missing}", hint="take attention sdpa, or auto")
        return AttentionChoice("flash", "as requested")
    for name in get_args(AttentionName):
        if name == requested:
            return AttentionChoice(name, "as requested")
    if requested != "auto":
        names = ", ".join(("auto", *get_args(AttentionName)))
        raise UserError(f"there is no attention {requested!r}", hint=f"choose one of {names}")
    return _automatic(device, dtype, n_tokens, head_dim)


def _automatic(
    device: torch.device, dtype: torch.dtype, n_tokens: int, head_dim: int
) -> AttentionChoice:
    missing = _flash_misses(device, dtype, head_dim)
    if not missing:
        return AttentionChoice("flash", "flash-attn is installed and the GPU has the precision")
    if device.type == "cuda" and dtype in _HALF:
        return AttentionChoice("sdpa", f"torch's flash kernel; flash-attn would need {missing}")
    if device.type == "cuda" and dtype == torch.float32:
        return AttentionChoice("sdpa", "torch's memory-efficient kernel: float32 has no flash one")
    if device.type == "cpu":
        return AttentionChoice("sdpa", "torch's fused CPU kernel")
    rows = f"{device.type} in {str(dtype).removeprefix('torch.')} would store all pairs"
    if n_tokens <= 1024:
        return AttentionChoice("sdpa", f"{rows}, of only {n_tokens} tokens")
    return AttentionChoice("chunked", f"torch on {rows} of {n_tokens} tokens: slower, but fits")


def _flash_misses(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return what flash-attn lacks here, or ""."""
    if device.type != "cuda":
        return "a CUDA device"
    if find_spec("flash_attn") is None:
        return "pip install 'vcell[flash]'"
    if dtype not in _HALF:
        return "precision bf16 or fp16"
    if accelerator(device).capability < (8, 0):
        return "an Ampere or later GPU"
    if head_dim > _FLASH_HEAD:
        return f"heads no wider than {_FLASH_HEAD}"
    return ""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    name: AttentionName = "sdpa",
    valid: Tensor | None = None,
    pattern: Pattern | None = None,
) -> Tensor:
    """Compute attention of all tokens to each other, or to those that the pattern allows.

    Parameters
    ----------
    q, k, v
        (B, H, T, D); scores are scaled by D ** -0.5.
    name
        The back end; see the module's docstring.
    valid
        (B, T), False for padding tokens, which nobody attends to. The output at padding is
        unspecified, but finite.
    pattern
        Who attends to whom; required by ``sparse`` and ``local``, not allowed for the others.

    Returns
    -------
    Tensor
        (B, H, T, D)
    """
    if name == "sdpa":
        mask = None if valid is None else valid[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if name == "linear":
        return linear_attention(q, k, v, valid)
    if name == "flash":
        return _flash(q, k, v, valid)
    return blocked_attention(q, k, v, pattern or everybody(q.shape[2]), valid)


def _flash(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
    """Call flash-attn, which needs tokens before heads, and no padding."""
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    exact = torch.are_deterministic_algorithms_enabled()  # backward pass sums in a fixed order
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, D)
    if valid is None:
        full: Tensor = flash_attn_func(q, k, v, deterministic=exact)
        return full.transpose(1, 2)
    lengths = valid.sum(1, dtype=torch.int32)
    starts = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    longest = int(lengths.max())
    q, k, v = (x[valid] for x in (q, k, v))  # (tokens without padding, H, D)
    packed: Tensor = flash_attn_varlen_func(
        q, k, v, starts, starts, longest, longest, deterministic=exact
    )
    out = packed.new_zeros((*valid.shape, *packed.shape[1:]))
    out[valid] = packed
    return out.transpose(1, 2)
