"""log1p of counts scaled to a common total, for all callers.

Two orders of arithmetic, which differ in the last bit, are in use: a count times its cell's factor,
and, as in scanpy, a count divided by its cell's divisor. Results have the precision of the inputs.
The compiled kernels (`vcell.kernels`) have their own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_scaled(
    counts: NDArray[Any], factor: NDArray[np.floating], indptr: NDArray[np.integer]
) -> NDArray[np.floating]:
    """Return log1p of stored counts of cells, times the cell's factor."""
    found: NDArray[np.floating] = counts * np.repeat(factor, np.diff(indptr))
    np.log1p(found, out=found)
    return found


def log_divided(counts: NDArray[Any], divisor: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return log1p of counts, each divided by its divisor, total of the cell / target."""
    found: NDArray[np.floating] = np.log1p(counts / divisor)
    return found


def log_profiles(counts: NDArray[Any], target: float) -> NDArray[np.floating]:
    """Return log1p of the rows of a table, each scaled to a total of `target`."""
    total = counts.sum(1, keepdims=True, dtype=np.float64)
    found: NDArray[np.floating] = np.log1p(counts * (target / np.maximum(total, 1)))
    return found


def log_table(n: int, divisor: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the values of counts 0 to n - 1 in every cell: ``[C, n]``."""
    return log_divided(np.arange(n, dtype=divisor.dtype), divisor[:, None])
