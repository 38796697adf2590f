"""The guard against NaN and infinite losses: skip such steps, and stop if they persist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcell.errors import RunFailed

if TYPE_CHECKING:
    from vcell.train.update import Outcome

_LIMIT = 10
_LIMIT_FP16 = 30  # from 65,536 down, each halving of the loss scale may skip a step


class Guard:
    """Count steps in a row that were skipped because gradients were not finite."""

    def __init__(self, precision: str) -> None:
        self.fp16 = precision == "fp16"
        self.limit = _LIMIT_FP16 if self.fp16 else _LIMIT
        self.skipped = 0
        self.total = 0

    def check(self, outcome: Outcome, step: int) -> str | None:
        """Return a message about a skipped step, or None; raise after too many in a row."""
        if outcome.applied:
            self.skipped = 0
            return None
        self.skipped += 1
        self.total += 1
        what = f"loss {outcome.metrics['loss']:.4g}, gradients not finite in {outcome.where}"
        if self.skipped >= self.limit:
            raise RunFailed(
                f"the loss became NaN or infinite: steps {step - self.skipped + 1} to {step} were "
                f"all skipped ({what}); the weights are those after step {step - self.skipped}",
                hint="look at the input for NaN and huge values; then lower lr, raise warmup, or "
                "use --precision bf16 or fp32",
            )
        return None if self.fp16 and self.skipped == 1 else f"step {step} was skipped: {what}"

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"skipped": self.skipped, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts."""
        self.skipped, self.total = state["skipped"], state["total"]
