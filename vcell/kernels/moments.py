"""Per gene: cells, sum, sum of squares, maximum; of values as stored or log-normalised.

Sums of whole numbers are exact in float64 below 2**53, so they do not depend on the order in which
blocks arrive. Those of normalised values do; `vcell.passes` fixes that order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUT = 64  # counts with a table entry per cell; over 99 % of the non-zeros of a UMI matrix


@njit(nogil=True, cache=True)
def gene_moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    single: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 4]``: non-zeros, sum, sum of squares, maximum.

    With `single` a value is squared in float32, as scanpy squares those of a float32 matrix: only
    squares over 2**24 differ from the exact ones. The maximum begins at 0.
    """
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            if value == 0:
                continue
            gene = out[batch, indices[j]]
            gene[0] += 1.0
            gene[1] += value
            gene[2] += value * value if single else np.float64(value) * np.float64(value)
            gene[3] = max(gene[3], np.float64(value))


@njit(nogil=True, cache=True)
def normalized_moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    scale: NDArray[np.float32],
    linear: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]``: non-zeros, sum, sum of squares of normalised values.

    The value is ``log1p(x / scale)`` in float32 or, with `linear`, ``expm1`` of that: what scanpy's
    flavours "cell_ranger" and "seurat" see, rounding included. ``scale[C]`` is a cell's total over
    the target sum (1 for empty cells). A table per cell holds the values of small whole counts.
    """
    table = np.empty(LUT, np.float32)
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        factor = scale[cell]
        known = 1  # entries of `table` filled for this cell
        table[0] = np.float32(0)
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            small = np.int64(value) if np.float32(0) <= value < np.float32(LUT) else 0
            if np.float32(small) == value:
                while known <= small:
                    table[known] = _normalized(np.float32(known), factor, linear)
                    known += 1
                normal = table[small]
            else:
                normal = _normalized(np.float32(value), factor, linear)
            if value != 0:
                gene = out[batch, indices[j]]
                gene[0] += 1.0
                gene[1] += normal
                gene[2] += normal * normal


@njit(nogil=True, cache=True, inline="always")
def _normalized(value: np.float32, factor: np.float32, linear: int) -> np.float32:
    log = np.float32(math.log1p(value / factor))
    return np.float32(math.expm1(log)) if linear else log


@njit(nogil=True, cache=True)
def log_moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    linear: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]`` the same of values that are log1p already."""
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            value = np.float32(data[j])
            if value != 0:
                normal = np.float32(math.expm1(value)) if linear else value
                gene = out[batch, indices[j]]
                gene[0] += 1.0
                gene[1] += normal
                gene[2] += normal * normal


@njit(nogil=True, cache=True)
def log_normalize(
    indptr: NDArray[np.int64],
    data: NDArray[np.float32],
    scale: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write ``log1p(x / scale)`` of every value to ``out[N]``, as scanpy's two steps would."""
    table = np.empty(LUT, np.float32)
    for cell in range(len(indptr) - 1):
        factor = scale[cell]
        known = 1
        table[0] = np.float32(0)
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            small = np.int64(value) if np.float32(0) <= value < np.float32(LUT) else 0
            if np.float32(small) == value:
                while known <= small:
                    table[known] = _normalized(np.float32(known), factor, 0)
                    known += 1
                out[j] = table[small]
            else:
                out[j] = _normalized(np.float32(value), factor, 0)


@njit(nogil=True, cache=True)
def add_into(total: NDArray[np.float64], part: NDArray[np.float64]) -> None:
    """Add a block's part to the total: the one place where sums of floats are merged."""
    flat_total = total.reshape(-1)
    flat_part = part.reshape(-1)
    for i in range(len(flat_total)):
        flat_total[i] += flat_part[i]
