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
    """Let one thread compute a narrow network on a CPU, unless OMP_NUM_THREADS says how many.

    Its operations are so short that threads wait for each other longer than they help: on two cores
    that others were using too, two threads took 0.8 s for a step of the demo and one took 0.1 s.
    """
    before = torch.get_num_threads()
    alone = device.type == "cpu" and width <= _NARROW and "OMP_NUM_THREADS" not in os.environ
    torch.set_num_threads(1 if alone else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
