"""Adding up rows of cells that were drawn, some of them more than once.

Serial, without the GIL: callers share the samples among their own threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def add_drawn(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    first: int,
    cells: NDArray[Any],
    begin: int,
    end: int,
    out: NDArray[Any],
) -> None:
    """Add to rows ``begin:end`` of ``out[S, G]`` what their cells hold in one piece of CSR.

    Parameters
    ----------
    indptr, indices, values
        The piece: cells ``first`` to ``first + len(indptr) - 2``. Columns are unsigned, so that
        numba does not look for indices from the end.
    cells
        ``[S, n]`` the cells of each sample, ascending; one drawn twice is there twice.
    """
    stop = first + len(indptr) - 1
    for sample in range(begin, end):
        drawn = cells[sample]
        sums = out[sample]
        at = np.searchsorted(drawn, first)
        while at < len(drawn) and drawn[at] < stop:
            cell = drawn[at]
            times = out.dtype.type(0)
            while at < len(drawn) and drawn[at] == cell:
                times += out.dtype.type(1)
                at += 1
            row = cell - first
            genes = indices[indptr[row] : indptr[row + 1]]
            counts = values[indptr[row] : indptr[row + 1]]
            for j in range(len(genes)):
                sums[genes[j]] += times * out.dtype.type(counts[j])
