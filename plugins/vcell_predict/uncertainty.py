"""The uncertainty of each prediction, and how well it tracks the error.

Every source is a number per perturbation in the unit of the effect: the root mean square over
genes. It is compared with the error on the run's held-out perturbations. P perturbations, N genes.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.metrics.rankings import spearman
from vcell.models import Disagrees, Uncertain
from vcell.screen.split import TEST, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.models import Predictor
    from vcell_predict.ensemble import Ensemble

    Array = NDArray[np.float64]

RUNS = "between runs"
_FEWEST = 4  # perturbations needed for a rank correlation


@dataclass(frozen=True)
class Trust:
    """Uncertainty and error on measured perturbations outside the training set."""

    names: list[str]
    part: str
    error: Array  # root mean squared error of each, without measurement noise
    sources: dict[str, Array]

    def correlations(self) -> dict[str, float]:
        """Return the rank correlation of each source with the error."""
        return {
            name: correlation
            for name, values in self.sources.items()
            if (correlation := spearman(values, self.error)) is not None
        }


def sources(ensemble: Ensemble, names: Sequence[str], contexts: Sequence[str]) -> dict[str, Array]:
    """Return the uncertainties that the runs offer, by name: a number per perturbation (P,)."""
    found: dict[str, list[Array]] = {}
    for member in ensemble.members:
        for name, offered in _offered(member.predictor, names, contexts).items():
            found.setdefault(name, []).append(offered)
    everywhere = {
        name: np.sqrt(np.mean(np.square(values), axis=0))
        for name, values in found.items()
        if len(values) == len(ensemble)
    }
    if len(ensemble) > 1:
        spread = ensemble.each(names, contexts).std(axis=0, ddof=1)
        everywhere = {RUNS: _rms(spread)} | everywhere
    return everywhere


def _offered(
    predictor: Predictor, names: Sequence[str], contexts: Sequence[str]
) -> dict[str, Array]:
    """Return the uncertainties that a predictor offers."""
    found = {}
    std = predictor.std(names, contexts) if isinstance(predictor, Uncertain) else None
    if std is not None:
        found["model"] = _rms(np.asarray(std))
    disagreement = predictor.heads(names, contexts) if isinstance(predictor, Disagrees) else None
    if disagreement is not None:
        found["heads"] = np.asarray(disagreement, np.float64)
    return found


def trust(ensemble: Ensemble) -> Trust | None:
    """Compare uncertainty with error on held-out, or else on validation perturbations."""
    screen = ensemble.screen
    for part, description in ((TEST, "held out"), (VALIDATION, "that chose the model")):
        rows = ensemble.rows(part)
        names = screen.perturbations[rows].tolist()
        contexts = screen.contexts[screen.context[rows]].tolist()
        if len(rows) < _FEWEST:
            continue
        if part == VALIDATION:
            ensemble = ensemble.as_chosen()
        effect = ensemble.predict(names, contexts)
        finite = np.flatnonzero(np.isfinite(effect).all(axis=1))
        if len(finite) < _FEWEST:
            continue
        squared = np.square(effect[finite] - screen.delta[rows[finite]], dtype=np.float64).mean(
            axis=1
        )
        error = np.sqrt(np.maximum(squared - screen.noise[rows[finite]], 0))
        labels = ([names[i] for i in finite], [contexts[i] for i in finite])
        return Trust(labels[0], description, error, sources(ensemble, *labels))
    return None


def write(path: Path, table: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
    """Write a table with a row per perturbation."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(table)
    lines.writerows(zip(*(map(_shown, column) for column in table.values()), strict=True))
    path.write_text(text.getvalue(), encoding="utf-8")


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def _rms(values: NDArray[np.floating]) -> Array:
    return np.asarray(np.sqrt(np.square(values, dtype=np.float64).mean(axis=1)))
