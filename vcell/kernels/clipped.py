"""What flavour "seurat_v3" needs: how often each gene has each count, and clipped sums.

The clip value of a gene is known only after a fit on all genes. A histogram of small counts and a
list of the large ones keep everything that the clipped sums need, so one reading of the file is
enough; where they do not fit, `clipped_sums` reads it again. Both give the same bits, because both
are made of whole numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def not_counts(data: NDArray[np.float32]) -> int:
    """Return how many values are negative or not whole."""
    count = 0
    for j in range(len(data)):
        count += not (data[j] >= 0 and data[j] == np.floor(data[j]))
    return count


@njit(nogil=True, cache=True)
def count_histogram(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    nonzeros: NDArray[np.int64],
    histogram: NDArray[np.int32],
    large: NDArray[np.float64],
) -> int:
    """Count whole values; return how many were too large for the histogram.

    Parameters
    ----------
    nonzeros
        ``[B, G]``, added to. Ones are not counted in the histogram: they are the difference.
    histogram
        ``[B, G, K]``, added to: column ``k`` counts the value ``k + 2``.
    large
        ``[L, 4]``: batch, gene, value and 1 for every larger one, as far as there is room.
    """
    bins = histogram.shape[2]
    found = 0
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            if value == 0:
                continue
            gene = indices[j]
            nonzeros[batch, gene] += 1
            if value > 1:
                k = np.int64(value) - 2
                if k < bins:
                    histogram[batch, gene, k] += 1
                else:
                    if found < len(large):
                        large[found, 0] = batch
                        large[found, 1] = gene
                        large[found, 2] = value
                        large[found, 3] = 1.0
                    found += 1
    return found


@njit(nogil=True, cache=True)
def clipped_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    clip: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]``: sum and sum of squares up to the clip, and how many are above."""
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            value = np.float64(data[j])
            gene = out[batch, indices[j]]
            if value > clip[batch, indices[j]]:
                gene[2] += 1.0
            else:
                gene[0] += value
                gene[1] += value * value


@njit(nogil=True, cache=True)
def clip_histogram(
    nonzeros: NDArray[np.int64],
    histogram: NDArray[np.int32],
    large: NDArray[np.float64],
    clip: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Write to ``out[B, G, 3]`` what `clipped_sums` would, from the histogram and the list."""
    batches, genes, bins = histogram.shape
    out[:] = 0.0
    for batch in range(batches):
        for gene in range(genes):
            ones = nonzeros[batch, gene]
            for k in range(bins):
                ones -= histogram[batch, gene, k]
                _add(
                    np.float64(k + 2),
                    histogram[batch, gene, k],
                    clip[batch, gene],
                    out,
                    batch,
                    gene,
                )
            _add(1.0, ones, clip[batch, gene], out, batch, gene)
    for i in range(len(large)):
        b = int(large[i, 0])
        g = int(large[i, 1])
        times = large[i, 3]
        _add(1.0, -times, clip[b, g], out, b, g)  # they were taken for ones above
        _add(large[i, 2], times, clip[b, g], out, b, g)


@njit(nogil=True, cache=True, inline="always")
def _add(
    value: float, times: float, clip: float, out: NDArray[np.float64], batch: int, gene: int
) -> None:
    if value > clip:
        out[batch, gene, 2] += times
    else:
        out[batch, gene, 0] += times * value
        out[batch, gene, 1] += times * value * value


@njit(nogil=True, cache=True)
def histogram_moments(
    nonzeros: NDArray[np.int64],
    histogram: NDArray[np.int32],
    large: NDArray[np.float64],
    single: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Write to ``out[B, G, 3]`` what `gene_moments` would of the same cells.

    With `single` the squares are rounded to float32, as they are in a float32 matrix.
    """
    batches, genes, bins = histogram.shape
    out[:] = 0.0
    for batch in range(batches):
        for gene in range(genes):
            ones = nonzeros[batch, gene]
            for k in range(bins):
                times = histogram[batch, gene, k]
                if times:
                    value = np.float64(k + 2)
                    ones -= times
                    out[batch, gene, 1] += times * value
                    out[batch, gene, 2] += times * value * value
            out[batch, gene, 0] = nonzeros[batch, gene]
            out[batch, gene, 1] += ones
            out[batch, gene, 2] += ones
    for i in range(len(large)):
        moment = out[np.int64(large[i, 0]), np.int64(large[i, 1])]
        value = large[i, 2]
        square = np.float64(np.float32(value) * np.float32(value)) if single else value * value
        moment[1] += large[i, 3] * (value - 1.0)
        moment[2] += large[i, 3] * (square - 1.0)
