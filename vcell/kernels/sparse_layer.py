"""A linear layer on sparse cells: ``y = x W`` and ``dW = x' dy`` for CSR x.

A cell has values in a twentieth of its genes, so this is a twentieth of the dense layer's work.
Weights are gene-major, (G, H): each gene's weights are contiguous. Going cell by cell would load
each gene's weights from memory once per cell; here genes are processed in blocks whose weights stay
in the cache while all cells use them. Sums run over a row's genes in the same order for any
threads.

Legend: B cells, G genes, H outputs. Rows are CSR with sorted columns.
"""

# kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.elementary import FLAGS
from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Elements of a block of weights: 256 KB, half of a small L2 cache.
_BLOCK = 65_536


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS, inline="always")
def _add4(y: Array, a: Array, b: Array, c: Array, d: Array, v: Array, k: int) -> None:
    p, q, r, s = v[k], v[k + 1], v[k + 2], v[k + 3]
    for h in range(y.shape[0]):
        y[h] += (p * a[h] + q * b[h]) + (r * c[h] + s * d[h])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS, inline="always")
def _add1(y: Array, a: Array, p: np.float32) -> None:
    for h in range(y.shape[0]):
        y[h] += p * a[h]


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def forward(begin: Array, indices: Array, values: Array, weight: Array, out: Array) -> None:
    """Add ``x @ weight`` to `out` (B, H)."""
    n_genes, width = weight.shape
    step = max(_BLOCK // width, 1)
    at = begin[:-1].copy()
    for end in range(step, n_genes + step, step):
        for b in range(out.shape[0]):
            k, last, y = at[b], begin[b + 1], out[b]
            while k + 4 <= last and indices[k + 3] < end:
                _add4(
                    y, weight[indices[k]], weight[indices[k + 1]], weight[indices[k + 2]],
                    weight[indices[k + 3]], values, k,
                )  # fmt: skip
                k += 4
            while k < last and indices[k] < end:
                _add1(y, weight[indices[k]], values[k])
                k += 1
            at[b] = k


@njit(nogil=True, cache=True)
def by_gene(
    begin: Array, indices: Array, values: Array, n_genes: int
) -> tuple[Array, Array, Array]:
    """Return the same matrix as CSC: column bounds, rows and values."""
    border = np.zeros(n_genes + 1, np.int64)
    for k in range(begin[0], begin[-1]):
        border[indices[k] + 1] += 1
    for g in range(n_genes):
        border[g + 1] += border[g]
    place = border[:-1].copy()
    rows = np.empty(border[-1], np.int32)
    moved = np.empty(border[-1], np.float32)
    for b in range(begin.shape[0] - 1):
        for k in range(begin[b], begin[b + 1]):
            g = indices[k]
            rows[place[g]] = b
            moved[place[g]] = values[k]
            place[g] += 1
    return border, rows, moved


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def backward(
    border: Array, rows: Array, values: Array, slope: Array, first: int, last: int, out: Array
) -> None:
    """Fill ``out[first:last] = (x' @ slope)[first:last]`` of (G, H), given x as CSC."""
    for g in range(first, last):
        y = out[g]
        y[:] = 0.0
        k, end = border[g], border[g + 1]
        while k + 4 <= end:
            _add4(
                y, slope[rows[k]], slope[rows[k + 1]], slope[rows[k + 2]], slope[rows[k + 3]],
                values, k,
            )  # fmt: skip
            k += 4
        while k < end:
            _add1(y, slope[rows[k]], values[k])
            k += 1
