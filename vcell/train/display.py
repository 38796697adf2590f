"""The display of a training: a progress bar of steps, and a table at each validation."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from vcell import console

if TYPE_CHECKING:
    from vcell.runs import History

_TREND = 12  # validations shown
_BARS = "▁▂▃▄▅▆▇█"


class Display:
    """Steps with time left, and metrics now, at the best step, and their trend.

    Validations are read back from the run's own events, so that a resumed run shows all of them.
    Silent on ranks other than 0, with ``--json`` and with ``--quiet``. Where
    stderr is not a terminal, each validation is a line.
    """

    def __init__(self, history: History, *, steps: int, monitor: str, leads: bool) -> None:
        quiet = console.settings.json or console.settings.verbosity < console.NORMAL
        self.leads, self.shown = leads, leads and not quiet
        self.steps, self.monitor = steps, monitor
        self.history = history
        self._stack = ExitStack()
        self._bar: console.Progress | None = None

    def __enter__(self) -> Self:
        if self.shown:
            bar = console.progress("training", total=self.steps, unit="steps")
            self._bar = self._stack.enter_context(bar)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def stepped(self, loss: float) -> None:
        """Show one more step."""
        if self._bar is not None:
            self._bar.advance(1, note=f"loss {loss:.4g}")

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the outcome of a validation, which is already in the events."""
        if not self.leads:
            return
        self.history.read()
        if self._bar is None:
            console.note(self._line(step, metrics))
            return
        self._bar.close()
        console.say(
            self._table(step, metrics) if sys.stderr.isatty() else self._line(step, metrics)
        )

    def _table(self, step: int, metrics: Mapping[str, float]) -> str:
        names = sorted(metrics, key=lambda name: (name != self.monitor, name))
        best = self.history.at_best()
        rows = [(n, metrics[n], best.get(n), trend(self._values(n))) for n in names]
        return console.table(rows, (f"step {step:,}", "now", "at best", "trend"))

    def _values(self, name: str) -> Sequence[float]:
        return self.history.series(name, "eval").values

    def _line(self, step: int, metrics: Mapping[str, float]) -> str:
        names = sorted(metrics, key=lambda name: (name != self.monitor, name))
        best = self.history.at_best().get(self.monitor)
        words = [f"{name} {metrics[name]:.4g}" for name in names]
        if best is not None:
            words[0] += f" (best {best:.4g})"
        return f"step {step:,}: " + ", ".join(words)


def trend(values: Sequence[float]) -> str:
    """Draw the last values as small bars."""
    recent = [value for value in values[-_TREND:] if math.isfinite(value)]
    if len(recent) < 2:
        return ""
    low, high = min(recent), max(recent)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in recent)
