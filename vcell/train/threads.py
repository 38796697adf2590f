"""How many threads compute a narrow network on a CPU."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_NARROW = 64  # d_model


@contextmanager
def few_threads(width: int, device: torch.device) -> Iterator[None]:
    """Let one thread compute a narrow network on a CPU, unless OMP_NUM_THREADS is set.

    Its operations are so short that threads lose more by waiting for each other than they gain: on
    two busy cores a step of the demo took 0.8 s with two threads and 0.1 s with one.
    """
    before = torch.get_num_threads()
    alone = device.type == "cpu" and width <= _NARROW and "OMP_NUM_THREADS" not in os.environ
    torch.set_num_threads(1 if alone else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
