"""The state of one run, as shown in a list of runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcell.runs import History

#: States of a run, worst first, in the order of sorting.
STATES = (
    "running", "paused", "stalled", "crashed", "failed", "stopped", "interrupted", "done",
)  # fmt: skip
_RECENT = 50  # steps over which speed and waiting are averaged
_LOSS = ("loss", "train_loss")


@dataclass(frozen=True)
class Overview:
    """One run in a list; None: unknown.

    Attributes
    ----------
    share
        Progress, 0 to 1.
    wait
        Share of a step spent waiting for data.
    """

    name: str
    status: str
    command: str = ""
    model: str = ""
    step: int | None = None
    max_steps: int | None = None
    share: float | None = None
    loss: float | None = None
    monitor: str = ""
    higher_is_better: bool = True
    best: float | None = None
    best_step: int | None = None
    seconds_a_step: float | None = None
    examples_per_s: float | None = None
    wait: float | None = None
    eta_s: float | None = None
    took_s: float | None = None
    last_sign: float = 0.0
    created: float = 0.0
    parts: tuple[int, int | None] | None = None  # finished, of how many
    config: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)  # at the last validation
    reason: str = ""  # reason for the status, if not obvious

    @property
    def is_live(self) -> bool:
        """Whether it may still write."""
        return self.status in ("running", "paused", "stalled")

    @property
    def short(self) -> str:
        """The end of its name, which identifies it."""
        return self.name.rsplit("-", 1)[-1] if self.name[:8].isdecimal() else self.name


def measured(history: History, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an `Overview` that come from events."""
    table = history.table("metric")
    last = table.row()
    config = meta.get("config", {})
    monitor = str(meta.get("monitor") or _guess_monitor(history))
    best = history.best(monitor)
    evals = history.last("eval")
    rate = history.rate(_RECENT)
    most = config.get("max_steps")
    return {
        "step": history.step,
        "max_steps": most if isinstance(most, int) else None,
        "loss": next((last.get(n, math.nan) for n in _LOSS if n in table.columns), None),
        "monitor": monitor,
        "higher_is_better": bool(meta.get("higher_is_better", True)),
        "best": best.value if best else None,
        "best_step": best.step if best else None,
        "seconds_a_step": rate,
        "examples_per_s": mean_of_last(history, "examples_per_s"),
        "wait": mean_of_last(history, "data_wait"),
        "measured": {k: v for k, v in evals.items() if isinstance(v, float) and k != "best"},
    }


def mean_of_last(history: History, name: str) -> float | None:
    """Return the mean of a metric over the last steps."""
    values = [v for v in history.series(name).values[-_RECENT:] if math.isfinite(v)]
    return sum(values) / len(values) if values else None


def _guess_monitor(history: History) -> str:
    """Return the metric that probably decides, for a run that does not name it."""
    names = [name for name in history.names("eval") if name != "best"]
    return next((n for n in ("score", "gain", "loss") if n in names), names[0] if names else "")


def time_left(overview: dict[str, Any]) -> float | None:
    """Return seconds until the last step at the current speed."""
    step, most, rate = (overview.get(k) for k in ("step", "max_steps", "seconds_a_step"))
    if step is None or most is None or rate is None or step > most:
        return None
    return float((most - step) * rate)
