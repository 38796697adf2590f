"""Sums over the neighbours of genes, and their gradient: message passing on a CPU.

Legend: n rows, E edges, D features of a node. Row i lists its sources as numbers within its sample,
whose nodes start at `first[i]`; for a single shared graph all start at 0. Serial, without the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def gather(rows: Array, sources: Array, first: Array, x: Array, out: Array) -> None:
    """Write (n, D) sums of the rows of `x` that each row lists."""
    width = x.shape[1]
    for i in range(rows.shape[0] - 1):
        y = out[i]
        y[:] = 0
        for e in range(rows[i], rows[i + 1]):
            v = x[first[i] + np.int64(sources[e])]
            for k in range(width):
                y[k] += v[k]


@njit(nogil=True, cache=True)
def scatter(rows: Array, sources: Array, first: Array, dy: Array, dx: Array) -> None:
    """Add each row of `dy` to the rows of `dx` that it lists: the gradient of `gather`."""
    width = dy.shape[1]
    for i in range(rows.shape[0] - 1):
        v = dy[i]
        for e in range(rows[i], rows[i + 1]):
            g = dx[first[i] + np.int64(sources[e])]
            for k in range(width):
                g[k] += v[k]
