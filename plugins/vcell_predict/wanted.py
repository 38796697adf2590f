"""Which perturbations to predict, how many cells of each, and what to do about unknown ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.models import Screen, read_perturbations
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Predictor

_HELD_OUT = 2  # Screen.part
_LEARNT = 0


def wanted(
    words: Sequence[str], screen: Screen, n_cells: int | None, control: str
) -> dict[str, int]:
    """Return the number of cells to predict of each perturbation."""
    asked: dict[str, int | None] = {}
    for word in words:
        if Path(word).suffix in (".csv", ".txt", ".tsv") or "/" in word:
            asked |= read_perturbations(Path(word))
        else:
            asked[word] = None
    if not words:
        asked = {str(name): None for name in screen.perturbations[screen.rows(_HELD_OUT)]}
        if not asked:
            raise UserError(
                "the run held no perturbations out", hint="name some with --perturbations"
            )
    asked.pop(control, None)
    measured = dict(zip(screen.perturbations.tolist(), screen.cells.tolist(), strict=True))
    usual = int(np.median(screen.cells))
    return {
        name: n_cells or count or int(measured.get(name, usual)) for name, count in asked.items()
    }


def effects(
    names: list[str], screen: Screen, predictor: Predictor, unknown: str
) -> tuple[NDArray[np.float32], list[str]]:
    """Return (P, N) effects and the names predicted by the mean for want of features."""
    effect = predictor.predict(names)
    blind = [name for name, row in zip(names, effect, strict=True) if not np.isfinite(row).all()]
    if not blind:
        return effect, []
    listed = ", ".join(blind[:8]) + (f" and {len(blind) - 8} more" if len(blind) > 8 else "")
    if unknown == "error":
        guess = did_you_mean(blind[0], screen.genes.tolist()) if len(blind) == 1 else ""
        raise UserError(
            f"nothing is known of {len(blind)} of {len(names)} targets: {listed}{guess}",
            hint="each must be a gene of the run with expression (and in its feature tables); "
            "--unknown mean predicts the mean effect for the others",
        )
    mean = screen.delta[screen.rows(_LEARNT)].mean(axis=0)
    console.warn(
        f"the mean effect is predicted for {len(blind)} targets without features: {listed}"
    )
    effect[[names.index(name) for name in blind]] = mean
    return effect, blind
