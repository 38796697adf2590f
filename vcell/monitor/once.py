"""The current state of the runs, without a terminal: `vcell monitor --once [--json]`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.monitor import query, words
from vcell.monitor.screens.parts import left_or_took

if TYPE_CHECKING:
    from vcell.monitor.overview import Overview
    from vcell.monitor.watch import Watch

_COLUMNS = ("run", "status", "step", "of", "loss", "best", "left or took")


def once(watch: Watch, fits: Callable[[Overview], bool]) -> tuple[dict[str, Any], str]:
    """Return the runs as a JSON document and as a table, newest first.

    Only the last 64 KB of each run's events are read.
    """
    for one in watch.runs.values():
        one.check(events=True)
    found = [one.overview for one in watch.runs.values() if fits(one.overview)]
    found.sort(key=query.SORTS["last sign"])
    data = {"runs": [_document(run) for run in found], "problems": _problems(watch)}
    rows = [
        (
            run.name, run.status, _whole(run.step), _whole(run.max_steps),
            words.number(run.loss), words.number(run.best), left_or_took(run),
        )
        for run in found
    ]  # fmt: skip
    text = console.table(rows, _COLUMNS) if rows else "no run fits"
    return data, text


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _problems(watch: Watch) -> list[str]:
    notices = [
        f"{one.overview.name}: {one.overview.reason}"
        for one in watch.runs.values()
        if one.overview.reason
    ]
    return [*watch.problems.values(), *notices]


def _document(run: Overview) -> dict[str, Any]:
    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return {
        "run": run.name,
        "status": run.status,
        "step": run.step,
        "max_steps": run.max_steps,
        "loss": finite(run.loss),
        "best": finite(run.best),
        "eta_s": finite(run.eta_s),
        "best_step": run.best_step,
        "monitor": run.monitor or None,
        "model": run.model or None,
        "examples_per_s": finite(run.examples_per_s),
        "data_wait": finite(run.wait),
        "last_sign": run.last_sign,
    }
