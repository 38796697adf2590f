"""Values for the tests: their detection, and counts turned into log1p as in scanpy.

scanpy's arithmetic in scanpy's precision, because ranks depend on the last bit: counts divided by
(the cell's total / the target), then log1p, in float64 if the file has float64, else in float32.
Small counts, nearly all of them, are looked up in a table per cell, with identical bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data.log_scale import log_divided, log_table
from vcell.errors import UserError
from vcell.kernels import ranks

if TYPE_CHECKING:
    from vcell.metrics.groups import Rows

_SMALL = 64  # counts below this come from the table


@dataclass(frozen=True)
class ValueSurvey:
    """Facts about all values, from one pass.

    Attributes
    ----------
    totals
        Sum of each cell's values; of a file, 0 for cells that were not read.
    low, high, fraction, not_finite
        Smallest and largest value (0 included), largest distance of any from a whole number, and
        number of NaN and infinite values.
    """

    totals: NDArray[np.float64]
    low: float
    high: float
    fraction: float
    not_finite: int

    @property
    def fractions(self) -> bool:
        """Whether these are not counts, by cell-eval's tolerance of 1e-3."""
        return self.fraction > 1e-3

    def require_finite(self, name: str) -> None:
        """Raise an error for NaN and infinite values in the file `name`."""
        if self.not_finite:
            raise UserError(f"{name}: NaN or infinite: {console.count(self.not_finite, 'value')}")


@dataclass(frozen=True)
class BlockSurvey(ValueSurvey):
    """The same facts about the values of one block, and the numbers of its cells."""

    rows: NDArray[np.int64]

    @classmethod
    def of(cls, block: Rows) -> BlockSurvey:
        """Survey a block; thread-safe."""
        totals = np.empty(len(block.rows))
        low, high, fraction, odd = ranks.survey(block.indptr, block.data, totals)
        return cls(totals, low, high, fraction, odd, block.rows)

    @property
    def counts(self) -> bool:
        """Whether every value is a whole number below 2^16."""
        return self.low >= 0 and self.high <= 65535 and not self.fraction and not self.not_finite


def merged(surveys: Iterable[BlockSurvey], n_cells: int) -> ValueSurvey:
    """Combine the surveys of all blocks."""
    totals = np.zeros(n_cells)
    low, high, fraction, not_finite = 0.0, 0.0, 0.0, 0
    for seen in surveys:
        totals[seen.rows] = seen.totals
        low, high = min(low, seen.low), max(high, seen.high)
        fraction, not_finite = max(fraction, seen.fraction), not_finite + seen.not_finite
    return ValueSurvey(totals, low, high, fraction, not_finite)


def survey(blocks: Iterable[Rows], n_cells: int) -> ValueSurvey:
    """Survey every value, in one pass."""
    return merged((BlockSurvey.of(block) for block in blocks), n_cells)


def precision(stored: np.dtype[Any]) -> type[np.floating]:
    """Return the precision that cell-eval uses: float64 for stored float64, else float32."""
    return np.float64 if stored == np.float64 else np.float32


def median_target(
    totals: NDArray[np.float64], *, sparse: bool, precision: type[np.floating] = np.float32
) -> np.floating:
    """Return scanpy's target: it ignores empty cells in dense matrices, but not in sparse ones."""
    counted = totals if sparse else totals[totals > 0]
    target = np.median(counted.astype(precision)) if len(counted) else 0
    return precision(target if target > 0 else 1)


def divisors(totals: NDArray[np.float64], target: np.floating) -> NDArray[np.floating]:
    """Return the divisor of each cell's counts, in the precision of `target`; 1 if it is empty."""
    own = np.where(totals > 0, totals, target).astype(target.dtype)
    divisor: NDArray[np.floating] = own / target
    return divisor


def logged(block: Any, divisor: NDArray[np.floating]) -> Any:
    """Return a block of counts as log1p(counts / divisor), one divisor per row."""
    table = log_table(_SMALL, divisor)
    out = np.empty(len(block.data), divisor.dtype)
    if ranks.look_up(block.indptr, block.data, table, out):
        left = np.flatnonzero(out < 0)
        cell = np.searchsorted(block.indptr, left, side="right") - 1
        out[left] = log_divided(block.data[left], divisor[cell])
    return replace(block, data=out)


def shares(block: Any, totals: NDArray[np.float64]) -> Any:
    """Return a block with each row divided by its total, in float64.

    This is one correctly rounded division, so equal shares of different totals stay tied.
    """
    each = np.repeat(totals, np.diff(block.indptr))
    return replace(block, data=block.data.astype(np.float64) / each)
