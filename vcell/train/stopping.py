"""Which validation was best, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from typing import Any


class Stopper:
    """Follow one metric; the same numbers on every rank give the same verdict on every rank."""

    def __init__(self, *, higher_is_better: bool, patience: int) -> None:
        self.higher_is_better, self.patience = higher_is_better, patience
        self.best: float | None = None
        self.best_step: int | None = None
        self.worse = 0  # validations since the best

    def update(self, value: float, step: int) -> bool:
        """Record a validation; return whether it is the best so far, which NaN never is."""
        better = not math.isnan(value) and (
            self.best is None or (value > self.best if self.higher_is_better else value < self.best)
        )
        if better:
            self.best, self.best_step, self.worse = value, step, 0
        else:
            self.worse += 1
        return better

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.worse

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far and the number of validations since."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.best, self.best_step = state["best"], state["best_step"]
        self.worse = state["worse"]
