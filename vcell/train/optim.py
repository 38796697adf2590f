"""The optimiser: parameter groups, learning rates, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from vcell.train.options import TrainOptions
    from vcell.train.task import Phase

_WSD_DECAY = 0.2  # share of the steps over which wsd decays at the end


def learning_rate(step: int, options: TrainOptions, phases: Sequence[Phase] = ()) -> float:
    """Return the learning rate of the update from step to step + 1.

    It warms up again at the beginning of each phase, over the same share of the phase's steps as
    the first warm-up has of all steps.
    """
    borders = [*(phase.start for phase in phases), options.max_steps]
    for start, end in pairwise(borders[1:]):
        rise = round(options.warmup * (end - start))
        if start <= step < start + rise:
            return _scheduled(step, options) * (step - start + 1) / rise
    return _scheduled(step, options)


def _scheduled(step: int, options: TrainOptions) -> float:
    """Return the learning rate of the schedule, without phases."""
    total = options.max_steps
    warmup = round(options.warmup * total)
    if step < warmup:
        return options.lr * (step + 1) / warmup
    decay_from = (
        max(warmup, round(total * (1 - _WSD_DECAY))) if options.schedule == "wsd" else warmup
    )
    done = max(0, step - decay_from) / max(1, total - decay_from)  # of the decay, 0..1
    shape = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * min(done, 1.0))) / 2,
        "wsd": 1 - done,
    }[options.schedule]
    floor = 1.0 if options.schedule == "constant" else options.final_lr
    return options.lr * (floor + (1 - floor) * max(shape, 0.0))


def build_optimizer(
    model: nn.Module, options: TrainOptions, device: torch.device
) -> torch.optim.AdamW:
    """Make AdamW; weights of two or more dimensions decay, biases and norms do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = device.type in ("cuda", "cpu")  # one pass over memory: ten times faster on a CPU
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=options.lr, fused=fused
    )
    # Allocate the state now, not in the first step when activations take part of the memory: a
    # step that runs out of memory then does so before any weight has changed, and can be repeated.
    for parameter in trained:
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device if fused else "cpu"),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return optimizer


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor this process holds: all of it unless fsdp shards it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Averaged:
    """Exponential moving average of the weights; early steps average over fewer."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.source = [p for p in model.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        shadow, source = [local(t) for t in self.shadow], [local(t) for t in self.source]
        torch._foreach_lerp_(shadow, source, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages as the model's weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.shadow, self.source, strict=True):
            kept = local(parameter).clone()
            local(parameter).copy_(local(average))
            local(average).copy_(kept)
