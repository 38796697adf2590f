"""Prepare a model for the loop: device, activation checkpointing, compilation, parallelism."""

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
    """Apply settings that are global to the process."""
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
    """Return the task's model, and the module to call in its place, possibly a wrapper.

    Every rank builds the same weights; after that each has its own random stream.
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
    """Store only the inputs of repeated blocks, and recompute the rest in the backward pass."""
    found = parallel.blocks(model)
    if not found:
        tell("checkpoint-activations has no effect: the model holds no nn.ModuleList")
    for block in found:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
