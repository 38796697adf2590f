"""Cells that are in the input more than once, such as in two of its files.

A copy of a held-out cell must not be learnt from, and no cell counts twice. Names are no evidence:
lanes share barcodes, and files that were joined lost theirs. Equal counts of many genes are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from vcell.gmvae.cells import ResidentCells

_TELLING = 10  # genes with counts from which equal cells are copies: fewer are alike by chance
_AT_ONCE = 4096  # rows


def originals(cells: ResidentCells, label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each cell the one it is a copy of, itself if of none.

    Of equal cells it is the first with a label (-1 for none), else the first.
    """
    n = cells.n_cells
    found = np.arange(n)
    some = np.flatnonzero(np.diff(cells.borders) >= _TELLING)
    order = some[np.argsort(label[some] < 0, kind="stable")]
    _, first, group = np.unique(_prints(cells)[order], return_index=True, return_inverse=True)
    found[order] = order[first[group]]
    return found


def _prints(cells: ResidentCells) -> NDArray[np.uint64]:
    """Return a 64-bit number for the counts of each cell: a sum over its genes, in any order."""
    weight = np.random.default_rng(0xC0B1E5).integers(1 << 63, size=cells.n_genes, dtype=np.uint64)
    prints = np.zeros(cells.n_cells, np.uint64)
    for start in range(0, cells.n_cells, _AT_ONCE):
        edge = cells.borders[start : start + _AT_ONCE + 1]
        part = slice(int(edge[0]), int(edge[-1]))
        terms = _mixed(weight[cells.indices[part]] ^ _bits(cells.counts[part]))
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        prints[start : start + _AT_ONCE] = np.diff(total[edge - edge[0]])
    return prints


def _bits(counts: NDArray[Any]) -> NDArray[np.uint64]:
    return counts.astype(np.float64).view(np.uint64)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread all bits over all others (splitmix64), so that sums of few are not alike."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))
