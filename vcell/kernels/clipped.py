"""The statistics of flavour "seurat_v3": histograms of the counts of each gene, and clipped sums.

The clip value of a gene is known only after a fit on all genes. A histogram of small counts and a
list of the large ones contain everything that the clipped sums need, so reading the file once is
enough; if they do not fit, `clipped_sums` reads it again. Both give identical results, because both
use integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


SMALL = 16  # smaller counts, nearly all, have 64 bytes per gene: one cache line


@njit(nogil=True, cache=True)
def count_histogram(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    small: NDArray[np.int32],
    high: NDArray[np.int32],
    large: NDArray[np.float64],
) -> tuple[int, int]:
    """Count whole values; return the numbers of too large values and of non-counts.

    Parameters
    ----------
    small
        ``[B, G, SMALL]``, added to: column ``v`` counts the value ``v`` (none is 0).
    high
        ``[B, G, K]``, added to: column ``k`` counts the value ``SMALL + k``.
    large
        ``[L, 3]``: batch, gene and value of every larger value, as far as there is room.
    """
    bins = high.shape[2]
    found = 0
    odd = 0
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        low = small[batch]
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            count = np.int64(value)
            if np.float64(count) != value or count < 0:
                odd += 1
            elif count < SMALL:
                if count > 0:
                    low[indices[j], count] += 1
            elif count - SMALL < bins:
                high[batch, indices[j], count - SMALL] += 1
            else:
                if found < len(large):
                    large[found, 0] = batch
                    large[found, 1] = indices[j]
                    large[found, 2] = value
                found += 1
    return found, odd


@njit(nogil=True, cache=True)
def list_large(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    least: float,
    large: NDArray[np.float64],
) -> None:
    """List the values from `least` on, like `count_histogram`, with room for all."""
    found = 0
    for cell in range(len(indptr) - 1):
        if codes[cell] < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            if data[j] >= least and data[j] == np.floor(data[j]):
                large[found, 0] = codes[cell]
                large[found, 1] = indices[j]
                large[found, 2] = data[j]
                found += 1


@njit(nogil=True, cache=True)
def clipped_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    clip: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]``: sum and sum of squares up to the clip, and the number above."""
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
    small: NDArray[np.int32],
    high: NDArray[np.int32],
    large: NDArray[np.float64],
    clip: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Write the result of `clipped_sums` to ``out[B, G, 3]``, from the histogram and the list.

    `large` is ``[L, 4]``: batch, gene, value, frequency.
    """
    batches, genes, _ = small.shape
    out[:] = 0.0
    for b in range(batches):
        for g in range(genes):
            for v in range(1, SMALL):
                _add(np.float64(v), small[b, g, v], clip[b, g], out, b, g)
            for k in range(high.shape[2]):
                _add(np.float64(SMALL + k), high[b, g, k], clip[b, g], out, b, g)
    for i in range(len(large)):
        b = int(large[i, 0])
        g = int(large[i, 1])
        _add(large[i, 2], large[i, 3], clip[b, g], out, b, g)


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
    small: NDArray[np.int32],
    high: NDArray[np.int32],
    large: NDArray[np.float64],
    single: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Write the result of `gene_moments` for the same cells to ``out[B, G, 3]``.

    With `single` the squares are rounded to float32, as for a float32 matrix.
    """
    batches, genes, _ = small.shape
    out[:] = 0.0
    for b in range(batches):
        for g in range(genes):
            for v in range(1, SMALL):
                _count(np.float64(v), small[b, g, v], np.float64(v * v), out, b, g)
            for k in range(high.shape[2]):
                value = np.float64(SMALL + k)
                _count(value, high[b, g, k], value * value, out, b, g)
    for i in range(len(large)):
        value = large[i, 2]
        square = np.float64(np.float32(value) * np.float32(value)) if single else value * value
        _count(value, large[i, 3], square, out, int(large[i, 0]), int(large[i, 1]))


@njit(nogil=True, cache=True, inline="always")
def _count(
    value: float, times: float, square: float, out: NDArray[np.float64], batch: int, gene: int
) -> None:
    out[batch, gene, 0] += times
    out[batch, gene, 1] += times * value
    out[batch, gene, 2] += times * square
