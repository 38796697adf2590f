"""Hide labels that look wrong: training treats such cells as unlabelled."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.gmvae.wrong_labels import doubts

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from vcell.gmvae.cells import ResidentCells
    from vcell.gmvae.components import Components
    from vcell.gmvae.wrong_labels import Doubts
    from vcell_train_gmvae.study import Study

DOUBTED = "doubted.csv"
_FEW = 50  # labels needed to detect wrong ones


def without_wrong_labels(
    study: Study, cells: ResidentCells, components: Components, rows: pd.Series[int], seed: int
) -> tuple[Study, dict[str, str]]:
    """Return the study without labels that look wrong, and a file that lists them.

    `rows` are those of the cells in the input, by their names.
    """
    shown = np.flatnonzero(study.shown >= 0)
    if len(shown) < _FEW:
        return study, {}
    found = doubts(components.of(cells, shown), study.shown[shown], len(study.labels), seed)
    if not found.suspect.any():
        return study, {}
    suspect = np.zeros(len(study.label), bool)
    suspect[shown[found.suspect]] = True
    console.say(
        f"{suspect.sum():,} of {len(shown):,} shown labels look wrong (in all about "
        f"{found.share:.0%} are): learned from without a label (--keep-all-labels shows them)"
    )
    changed = dataclasses.replace(
        study, shown=np.where(suspect, -1, study.shown), suspect=suspect, doubted=found.share
    )
    return changed, {DOUBTED: _table(study, shown, found, rows)}


def _table(study: Study, shown: NDArray[Any], found: Doubts, rows: pd.Series[int]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["cell", "row", "label", "likelier", "probability_wrong"])
    for i in np.flatnonzero(found.suspect).tolist():
        cell = int(shown[i])
        given, likelier = study.labels[study.shown[cell]], study.labels[found.likelier[i]]
        where = rows.index[cell], rows.iat[cell]
        writer.writerow([*where, given, likelier, f"{found.wrong[i]:.4f}"])
    return out.getvalue()
