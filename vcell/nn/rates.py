"""The speed of a preset's layers on this device: measured in two seconds, once per process.

Each part of a step runs at its true width and sequence length, forward and backward, on a share of
the tokens or rows that fits the budget, and its time is scaled by that share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcell.gpu.accelerator import accelerator
from vcell.nn.attention import attend
from vcell.nn.encoder import EncoderBlock, SelfAttention
from vcell.nn.patterns import Pattern, everybody

if TYPE_CHECKING:
    from vcell.nn.presets import AttentionName, Preset

clock = time.perf_counter
_SECONDS = 0.2  # target time of one run of a part; each runs at least four times
_FIRST = 64  # tokens or rows of the first run, which gives an estimate


@dataclass(frozen=True)
class Rates:
    """Seconds of the parts of one training step."""

    layer: float  # one block without attention, forward and backward, all tokens
    layer_forward: float
    attention: float  # of one block
    attention_forward: float
    parameter: float  # clipping and AdamW, one parameter


class _Unmixed(SelfAttention):
    """Projections without attention."""

    def forward(self, x: Tensor, valid: Tensor | None, pattern: Pattern | None) -> Tensor:
        q, k, v = self.heads(x)
        out: Tensor = self.out((q + k + v).transpose(1, 2).reshape(x.shape))
        return out


@lru_cache(maxsize=32)
def measure(
    preset: Preset,
    n_tokens: int,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    name: AttentionName,
    pattern: Pattern | None,
) -> Rates:
    """Measure one block; arguments as in `vcell.nn.estimate.estimate`."""
    it = accelerator(device)
    state, own = torch.random.get_rng_state(), it.random_state()
    try:
        block = EncoderBlock(preset, "sdpa").to(device)
        block.attention = _Unmixed(preset, "sdpa").to(device)
        layer = _scaled(_layer(block, device, dtype), n_tokens * batch, device)
        attention = _scaled(
            _attention(preset, n_tokens, device, dtype, name, pattern), n_tokens, device
        )
        seconds = _optimizer(block, device)
    finally:
        torch.random.set_rng_state(state)
        if own is not None:
            it.set_random_state(own)
    return Rates(layer[0], layer[1], batch * attention[0], batch * attention[1], seconds)


def _layer(
    block: EncoderBlock, device: torch.device, dtype: torch.dtype
) -> Callable[[int], Callable[[], Tensor]]:
    def prepare(count: int) -> Callable[[], Tensor]:
        x = torch.randn(1, count, block.up.in_features, device=device, requires_grad=True)

        def run() -> Tensor:
            with _autocast(device, dtype):
                out: Tensor = block(x)
            return out

        return run

    return prepare


def _attention(
    preset: Preset,
    n_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    name: AttentionName,
    pattern: Pattern | None,
) -> Callable[[int], Callable[[], Tensor]]:
    """Return a function that attends from some rows to all keys of one sequence."""
    if name in ("chunked", "sparse", "local"):
        pattern = pattern or everybody(n_tokens)
    shape = (1, n_tokens, preset.n_heads, preset.head_dim)
    q, k, v = (
        torch.randn(shape, device=device, dtype=dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )

    def prepare(count: int) -> Callable[[], Tensor]:
        if pattern is None:
            rows = n_tokens if name == "linear" else count
            return lambda: attend(q[:, :, :rows], k, v, name=name)
        some = pattern.share(count / n_tokens).to(device)
        return lambda: attend(q, k, v, name=name, pattern=some)

    return prepare


def _scaled(
    prepare: Callable[[int], Callable[[], Tensor]], total: int, device: torch.device
) -> tuple[float, float]:
    """Return seconds of forward and backward, and of forward, for `total` tokens or rows."""
    count = min(_FIRST, total)
    run = prepare(count)
    guess = min(_timed(run, device)[0] for _ in range(3))  # the first warms up
    count = min(total, max(count, int(count * _SECONDS / max(guess, 1e-9))))
    run = prepare(count)
    first = _timed(run, device)[0]
    repeats = min(10, max(3, int(2 * _SECONDS / max(first, 1e-9))))
    # The fastest run: other load on the machine makes a run slower, never faster.
    both, forward = (
        min(part) for part in zip(*(_timed(run, device) for _ in range(repeats)), strict=True)
    )
    return both * total / count, forward * total / count


def _timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """Return seconds of forward and backward, and of forward."""
    _wait(device)
    start = clock()
    out = run()
    _wait(device)
    middle = clock()
    out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
    _wait(device)
    return clock() - start, middle - start


def _optimizer(block: EncoderBlock, device: torch.device) -> float:
    """Return seconds of clipping and AdamW for each parameter."""
    parameters = [p for p in block.parameters() if p.grad is not None]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=device.type == "cuda")
    times = []
    for _ in range(4):
        _wait(device)
        start = clock()
        norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
        float(torch.stack(norms).square().sum())
        optimizer.step()
        _wait(device)
        times.append(clock() - start)
    return min(times[1:]) / sum(p.numel() for p in parameters)


def _autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _wait(device: torch.device) -> None:
    accelerator(device).synchronise()
