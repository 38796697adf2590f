"""The cost of a task's steps on this machine, before data are read: seconds and memory.

A task is rehearsed on synthetic batches with the same updates that train it. On a CPU, a part of a
large batch represents all of it; the optimiser, whose time does not grow with the batch, is timed
separately.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from vcell.train import batch as batches
from vcell.train import rng
from vcell.train.optim import Averaged, build_optimizer
from vcell.train.precision import resolve
from vcell.train.prepare import build
from vcell.train.state import Learner
from vcell.train.task import Place
from vcell.train.update import Updater

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcell.train.options import TrainOptions
    from vcell.train.task import Batch

SECONDS = 1.5  # limit on a step on a CPU; longer ones are rehearsed in part
REPEATS = 5


class Rehearsable(Protocol):
    """The part of a `Task` that a rehearsal needs, and synthetic batches."""

    def build(self) -> nn.Module:
        """Build the model, as for training."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the loss, as for training."""

    def batch(self, n: int) -> Batch:
        """Make a synthetic batch of n examples, of the same shapes as in training."""


class Rehearsal:
    """A task on a device, with its model and updater."""

    def __init__(self, task: Rehearsable, options: TrainOptions, device: torch.device) -> None:
        self.task, self.device, place = task, device, Place(device=device)
        whole = cast("Any", task)  # the updater uses only `loss`
        options = dataclasses.replace(options, compile=False)
        self.precision = resolve(options.precision, device)
        self.model, called = build(whole, options, place, lambda _: None)
        learner = Learner(
            self.model,
            build_optimizer(self.model, options, device),
            Averaged(self.model, options.ema) if options.ema else None,
        )
        self.update = Updater(
            whole, learner, called, options, place, self.precision, lambda _: None
        )
        self.model.train()

    def step(self, n: int, of: int | None = None) -> float:
        """Take a step over n examples; return its seconds, scaled to a batch of `of` examples."""
        batch = self.task.batch(n)
        self.update.spans.take()
        self._wait()
        begun = time.perf_counter()
        self.update(batch, total=n, overlap=False, rate=0.0)
        self._wait()
        seconds = time.perf_counter() - begun
        apart = self.update.spans.take().get("optimiser", 0.0)
        share = (of or n) / n
        return seconds if share == 1 else apart + (seconds - apart) * share

    def fitting(self, n: int, fewest: int = 1) -> int:
        """Return how many of n examples fit into `SECONDS`: all, on a GPU."""
        if self.device.type == "cuda":
            self.step(n)
            return n
        few = min(fewest, n)
        self.step(few)
        each = statistics.median(self.step(few) for _ in range(2)) / few
        return int(np.clip(SECONDS / max(each, 1e-9), few, n))

    def activation_bytes(self, n: int) -> int:
        """Return the bytes that a forward pass over n examples stores for the backward pass."""
        batch = batches.to_device(self.task.batch(n), self.device)
        with self.precision.autocast():
            return activation_bytes(self.model, batch)

    def _wait(self) -> None:
        self.update.accelerator.synchronise()


def fastest(rehearsals: Sequence[Rehearsal], n: int, of: int) -> list[float]:
    """Return each one's fastest step over n examples, in seconds for a batch of `of` examples.

    They take turns, so that other load on the machine affects all alike. Load makes a step slower,
    never faster; so the fastest counts.
    """
    times: list[list[float]] = [[] for _ in rehearsals]
    for _ in range(REPEATS):
        for one, found in zip(rehearsals, times, strict=True):
            found.append(one.step(n, of))
    return [min(found) for found in times]


def rehearse(task: Rehearsable, options: TrainOptions, device: torch.device, n: int) -> float:
    """Return the seconds of a step of n examples, one device's share of the batch."""
    state = rng.capture(device)
    try:
        one = Rehearsal(task, options, device)
        return fastest([one], one.fitting(n), n)[0]
    finally:
        rng.restore(state, device)


def activation_bytes(model: nn.Module, batch: Any) -> int:
    """Return the bytes a forward pass stores, without weights and inputs, each storage once."""
    known = [*model.parameters(), *model.buffers(), *batches.leaves(batch)]
    apart = {tensor.untyped_storage().data_ptr() for tensor in known}
    held: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(batch)
    return sum(t.untyped_storage().nbytes() for at, t in held.items() if at not in apart)
