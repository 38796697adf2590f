"""Make a model ready for the loop: on its device, recomputing, compiled, shared."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vcell.gpu.accelerator import accelerator
from vcell.train import parallel, rng

if TYPE_CHECKING:
    from vcell.train.options import TrainOptions
    from vcell.train.task import Place, Task


def set_up_device(options: TrainOptions, place: Place) -> None:
    """Apply the settings that hold for the whole process."""
    if place.device.type != "cuda":
        return
    if options.memory_share is not None:
        accelerator(place.device).limit_memory(options.memory_share)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def build(
    task: Task, options: TrainOptions, place: Place, tell: Callable[[str], None]
) -> tuple[nn.Module, nn.Module]:
    """Return the task's model and what to call in its place, which may be a wrapper of it.

    Every rank builds the same weights; then each goes on with a random stream of its own.
    """
    rng.seed_all(rng.mixed(options.seed))
    model = task.build().to(place.device)
    if options.checkpoint_activations:
        _recompute_activations(model, tell)
    if options.compile:
        model.compile()
    called = parallel.shared(model, options.parallel, place)
    rng.seed_all(rng.mixed(options.seed, 1 + place.rank))
    return model, called


def _recompute_activations(model: nn.Module, tell: Callable[[str], None]) -> None:
    """Keep only the inputs of repeated blocks and compute the rest again when needed."""
    found = parallel.blocks(model)
    if not found:
        tell("checkpoint-activations has no effect: the model holds no nn.ModuleList")
    for block in found:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
