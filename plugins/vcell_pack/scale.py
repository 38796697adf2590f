"""Detect whether values are counts or log1p, report it, and convert them for the challenge.

The 2025 packer converts counts to log1p of counts scaled to the median total, in float32. This
module gives the same values in two passes, instead of in memory. 2026 takes counts as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect
from vcell.data.log_scale import log_divided
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell_pack.formats import Format


@dataclass(frozen=True)
class Scaled:
    """How values are converted to the format."""

    is_counts: bool
    description: str
    divisor: NDArray[np.float32] | None = None  # per cell; None leaves the values unchanged

    @classmethod
    def of(cls, source: CellSource, form: Format, name: str) -> Scaled:
        """Detect the scale of the values, and describe the conversion."""
        if form.counts:
            return cls(True, "raw counts, kept")  # noqa: FBT003 - every value is checked later
        found = detect.scale(source)
        if found.kind == "normalised":
            raise UserError(
                f"{name}: log1p values or raw counts are needed, these are {found.text}",
                hint="take the logarithm (log1p), or pack the raw counts",
            )
        if found.kind != "counts":
            if found.kind != "log1p":
                console.say(
                    f"{name}: not whole numbers, taken as log1p values and checked to be below 15"
                )
            return cls(False, "log1p, kept")  # noqa: FBT003
        totals = _totals(source)
        alive = totals > 0
        median = np.float32(np.median(totals[alive])) if alive.any() else np.float32(1)
        console.say(
            f"{name}: counts become log1p of counts scaled to their median total {median:g}"
        )
        divisor = np.where(alive, totals, 1).astype(np.float32) / median
        return cls(True, f"counts, scaled to {median:g} and log1p", divisor)  # noqa: FBT003

    def apply(self, block: Any) -> Any:
        """Return a block with its values converted."""
        if self.divisor is None:
            return block
        per_value = np.repeat(self.divisor[block.rows], np.diff(block.indptr))
        return replace(block, data=log_divided(block.data.astype(np.float32), per_value))


def _totals(source: CellSource) -> NDArray[np.float64]:
    """Sum each cell's counts in one pass."""
    totals = np.zeros(source.n_cells)
    with console.progress("adding up cells", source.n_cells) as bar:
        for block in source.chunks():
            sums = np.concatenate(([0.0], np.cumsum(block.data, dtype=np.float64)))
            totals[block.rows] = sums[block.indptr[1:]] - sums[block.indptr[:-1]]
            bar.advance(len(block.rows))
    return totals
