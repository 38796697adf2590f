"""Per gene: cells, sum, sum of squares, of values as stored or log-normalised.

Sums of whole numbers below 2**53 are exact in float64, so they do not depend on the order of
blocks. Sums of normalised values do; `vcell.passes` fixes that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUT = 64  # table entries per cell: covers over 99 % of the non-zeros of a UMI matrix


@njit(nogil=True, cache=True)
def gene_moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    single: bool,  # noqa: FBT001
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]``: non-zeros, sum, sum of squares.

    With `single`, values are squared in float32, as in scanpy for a float32 matrix: only squares
    above 2**24 differ from the exact ones.
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


@njit(nogil=True, cache=True)
def list_untabled(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    others: NDArray[np.int64],
    places: NDArray[np.int32],
) -> None:
    """List values without an entry in the table, like `tabled_moments`, with room for all."""
    found = 0
    for cell in range(len(indptr) - 1):
        if codes[cell] < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            value = data[j]
            small = np.int32(value)
            if np.float32(small) != value or np.uint32(small) >= LUT:
                others[found] = j
                places[found, 0] = cell
                places[found, 1] = indices[j]
                found += 1


@njit(nogil=True, cache=True)
def tabled_moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    table: NDArray[np.float32],
    out: NDArray[np.float64],
    others: NDArray[np.int64],
    places: NDArray[np.int32],
) -> int:
    """Add to ``out[B, G, 3]`` non-zeros, sum and sum of squares of the values in the table.

    Parameters
    ----------
    table
        ``[C, LUT]``: values of each cell's small whole numbers. Made with numpy, as in scanpy: its
        float32 functions round differently from the C library's on some processors.
    others, places
        ``[M]`` and ``[M, 2]``: position, cell and gene of values without an entry, as far as there
        is room; their number is returned.
    """
    found = 0
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        own, sums, first = table[cell], out[batch], indptr[cell]
        genes, values = indices[first : indptr[cell + 1]], data[first : indptr[cell + 1]]
        for j in range(len(genes)):
            value = values[j]
            small = np.int32(value)
            if np.float32(small) != value or np.uint32(small) >= LUT:
                if found < len(others):
                    others[found] = first + j
                    places[found, 0] = cell
                    places[found, 1] = genes[j]
                found += 1
            elif small > 0:
                normal = own[np.uint32(small)]
                gene = np.uint32(genes[j])
                sums[gene, 0] += 1.0
                sums[gene, 1] += normal
                sums[gene, 2] += normal * normal
    return found


@njit(nogil=True, cache=True)
def listed_moments(
    batches: NDArray[np.int32],
    genes: NDArray[np.int32],
    values: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 3]`` non-zeros, sum and sum of squares of listed values."""
    for i in range(len(values)):
        if batches[i] >= 0 and values[i] != 0:
            gene = out[batches[i], genes[i]]
            gene[0] += 1.0
            gene[1] += values[i]
            gene[2] += values[i] * values[i]


@njit(nogil=True, cache=True)
def rare_entries(  # noqa: PLR0913, PLR0917
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    cells: NDArray[np.int64],
    limit: int,
    counts: NDArray[np.int32],
    counting: NDArray[np.bool_],
    rows: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """Count the cells of every gene in ``counts[G]``, up to `limit`, and store the first entries.

    `rows` and `values` have one column per stored entry. Counting soon ends for most genes, and
    then only the small array `counting`, which marks the others, is read.
    """
    room = rows.shape[1]
    for cell in range(len(indptr) - 1):
        if codes[cell] < 0:
            continue
        for j in range(indptr[cell], indptr[cell + 1]):
            gene = indices[j]
            if counting[gene] and data[j] != 0:
                place = counts[gene]
                if place < room:
                    rows[gene, place] = cells[cell]
                    values[gene, place] = data[j]
                counts[gene] = place + 1
                counting[gene] = place + 1 < limit


@njit(nogil=True, cache=True)
def add_into(total: NDArray[np.float64], part: NDArray[np.float64]) -> None:
    """Add a block's sums to the total: the only place where sums of floats are merged."""
    flat_total = total.reshape(-1)
    flat_part = part.reshape(-1)
    for i in range(len(flat_total)):
        flat_total[i] += flat_part[i]
