"""The row-wise operations of a transformer: sums with LayerNorm and ReLU, in place.

numpy needs several passes over memory for each, which cost more than the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.kernels.elementary import FLAGS, ONE, plus
from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]  # [N, D]
    Vector = NDArray[np.float32]

_ZERO = np.float32(0)


@njit(nogil=True, cache=True, fastmath=FLAGS)
def add_vector(rows: Rows, vector: Vector) -> None:
    """Add one vector to every row."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] += vector[j]


@njit(nogil=True, cache=True, fastmath=FLAGS)
def add_and_rectify(rows: Rows, bias: Vector) -> None:
    """Add a bias to every row, and replace negative results by 0; NaN stays."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] + bias[j]
            rows[i, j] = _ZERO if value < _ZERO else value


@njit(nogil=True, cache=True, fastmath=FLAGS)
def add_and_normalise(
    rows: Rows, added: Rows, bias: Vector, gain: Vector, offset: Vector, eps: np.float32
) -> None:
    """Replace each row by ``LayerNorm(row + added + bias)``, with `gain` and `offset`."""
    n, width = rows.shape
    size = np.float32(width)
    for i in range(n):
        row, more, total = rows[i], added[i], _ZERO
        for j in range(width):
            value = row[j] + more[j] + bias[j]
            row[j] = value
            total = plus(total, value)
        mean, spread = total / size, _ZERO
        for j in range(width):
            apart = row[j] - mean
            spread = plus(spread, apart * apart)
        factor = ONE / np.sqrt(spread / size + eps)
        for j in range(width):
            row[j] = (row[j] - mean) * factor * gain[j] + offset[j]
