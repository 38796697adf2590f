"""What a plugin provides to the shared loop: a model, a stream of batches, a loss, validation.

Nothing here is subclassed: any object with these attributes is a task. Shapes and contents of a
batch are up to the task; the loop only needs its length, slices and a copy on the device,
which `vcell.train.batch` provides for tensors, arrays and any nesting of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Batch = Any  # tensor | array | tuple | list | dict | dataclass of those, examples first


@dataclass(frozen=True)
class Place:
    """Rank and device of this process, and the number of processes."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes the shared files."""
        return self.rank == 0


@dataclass(frozen=True)
class Phase:
    """A stretch of the training, for which the learning rate warms up again."""

    name: str
    start: int  # the step before which it begins; 0 for the first


class Batches(Protocol):
    """An endless stream of this process's shares of global batches.

    The union of all ranks' shares must be the same examples for any number of processes. The
    state is the position after the last batch *returned* (not read ahead), is the same on every
    rank, and is plain JSON.
    """

    def __next__(self) -> Batch:
        """Return this process's share of the next global batch, on the CPU."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, on any number of processes."""


class Task(Protocol):
    """One kind of training, as the loop needs it.

    Attributes
    ----------
    monitor
        The key of `validate`'s result that picks the best checkpoint and stops early.
    higher_is_better
        Whether a larger `monitor` is better.
    identity
        Facts that must not change when a run is resumed (model preset, fingerprints of genes
        and data ...), as plain JSON. Resuming with another identity is refused.

    Five more are optional: ``phases``, a sequence of `Phase` at whose starts the learning rate
    warms up again (the stream changes whatever else differs, by its position); ``references``,
    scores by name to compare with, such as a baseline's on the validation data, which reports
    draw as lines; ``validates_first = True``, to validate the model before its first step, so
    that the initial model may be the best; ``stepped(model, metrics)``, called on every rank
    after each update with the metrics of `loss`, averaged over the global batch, to update the
    model's buffers; ``validation_batch``, how many examples `validate` computes at once, which
    is halved when memory runs out.
    """

    monitor: str
    higher_is_better: bool
    identity: Mapping[str, Any]

    def build(self) -> nn.Module:
        """Build the model on the CPU, from torch's seeded generator.

        Blocks held in an `nn.ModuleList` are what fsdp shards and activation checkpointing
        recomputes.
        """

    def batches(self, place: Place) -> Batches:
        """Open the stream of training batches for one process."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the loss as a *mean over the examples* of `batch`, and metrics to log.

        Call ``model(...)`` exactly once, as a whole: DDP and FSDP hook into that call. Metrics are
        averaged over pieces and processes, weighted by their number of examples.
        """

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Score the model, which is in eval mode and holds the averaged weights if there are any.

        Called on every rank at the same step, without gradients. Rank 0's numbers are used.

        """
