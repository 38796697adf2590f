"""A training step that takes 20 ms on any machine: the worker of a run that tests measure."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcell.runs import Run


def train(run: Run) -> None:
    """Log a step every 20 ms until the process is killed."""
    begun = time.monotonic()
    for step in count(1):
        time.sleep(max(0.0, begun + 0.02 * step - time.monotonic()))
        run.log("metric", step=step, loss=1 / step)
