"""The results of the evaluation of a context, and the average over contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console

if TYPE_CHECKING:
    from vcell.metrics.significance import DeTable  # noqa: TC004 - a dataclass only names it


@dataclass(frozen=True)
class Metric:
    """One metric of one context, or of the average over contexts."""

    name: str
    raw: float
    baseline: float | None = None
    ceiling: float | None = None
    scaled: float | None = None

    def row(self) -> tuple[str | float | None, ...]:
        """Return the row of the table; missing values are None."""
        numbers = (self.raw, self.baseline, self.ceiling, self.scaled)
        return (self.name, *(None if x is None or math.isnan(x) else x for x in numbers))


@dataclass(frozen=True)
class Scored:
    """The scores of one context."""

    context: str | None
    perturbations: tuple[str, ...]
    per_perturbation: dict[str, NDArray[np.float64]]
    metrics: tuple[Metric, ...]
    overall: float | None
    facts: dict[str, Any]
    tables: dict[str, DeTable] = field(default_factory=dict)  # real_de, pred_de
    distances: NDArray[np.float64] | None = None  # [P, P] predicted effects against real ones
    effects: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # [P, G] real, predicted
    genes: NDArray[np.str_] | None = None  # [G], of the effects
    components: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # [P] of pooled ratios


def note(facts: dict[str, Any], text: str) -> None:
    """Say something about the scores, and list it with the notes of their facts."""
    console.say(text)
    facts["notes"] = [*facts["notes"], text]


def average(found: list[Scored]) -> tuple[tuple[Metric, ...], float | None]:
    """Average metrics and overall scores over contexts, each context with the same weight."""
    if len(found) == 1:
        return found[0].metrics, found[0].overall
    parts = ("raw", "baseline", "ceiling", "scaled")
    merged = [
        Metric(same[0].name, **{p: _mean([getattr(m, p) for m in same]) for p in parts})  # type: ignore[arg-type]
        for same in zip(*(one.metrics for one in found), strict=True)
    ]
    return tuple(merged), _mean([one.overall for one in found])


def _mean(values: list[float | None]) -> float | None:
    """Average the values that are not None; None if there are none."""
    present = [v for v in values if v is not None and not math.isnan(v)]
    return float(np.mean(present)) if present else None
