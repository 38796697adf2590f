"""The exact energy distance of groups of cells to the controls, block by block.

cell-eval's ``pearson_edistance``. The time is quadratic in cells; memory is two blocks of cells.
The control cells are read once per block of controls, all others as often.

Legend: ``P`` perturbations, ``G`` genes, ``B`` cells of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.metrics.vcc2025 import pearson

if TYPE_CHECKING:
    from vcell.metrics.groups import Rows

Array = NDArray[np.float64]
Reader = Callable[[NDArray[np.int64]], Iterable["Rows"]]
#: Bytes of a block of dense cells; two are held, and the distances between them.
MEMORY = 128 << 20


def agreement(real: Array, pred: Array) -> float:
    """``pearson_edistance``: correlation of the perturbations' distances, ``[P]`` each."""
    return float(pearson(real[None], pred[None])[0]) if len(real) > 1 else float("nan")


def distances(
    read: Reader, group: NDArray[np.int32], n_groups: int, n_genes: int, *, memory: int = MEMORY
) -> Array:
    """Return ``[P]`` energy distances of every group to group 0.

    Twice the mean distance between a cell of the group and one of group 0, minus the mean distances
    within each of the two (a cell's distance to itself included). NaN for a group without cells.

    Parameters
    ----------
    read
        Yields the given cells as CSR blocks.
    group
        ``[cells]`` group of each cell; negative for none.
    n_groups, n_genes
        P + 1 and G.
    memory
        Bytes of dense cells in one block.
    """
    most = max(memory // (8 * max(n_genes, 1)), 1)
    sizes = np.bincount(group[group >= 0], minlength=n_groups).astype(np.float64)
    between, within = np.zeros(n_groups), np.zeros(n_groups)
    everyone = np.flatnonzero(group >= 0)
    for controls in _blocks(read, np.flatnonzero(group == 0), n_genes, most):
        for some in _blocks(read, everyone, n_genes, most):
            rows = _distances(some, controls).sum(axis=1)
            between += np.bincount(group[some.rows], rows, minlength=n_groups)
    within[0] = between[0]
    for g in range(1, n_groups):
        own = np.flatnonzero(group == g)
        for some in _blocks(read, own, n_genes, most):
            others = [some] if len(own) <= most else _blocks(read, own, n_genes, most)
            within[g] += sum(_distances(some, other).sum() for other in others)
    with np.errstate(invalid="ignore", divide="ignore"):
        inner = within / sizes**2
        found: Array = 2 * between / (sizes * sizes[0]) - inner - inner[0]
    return found[1:]


class _Dense:
    """Some cells in float64, and the squares of their lengths."""

    def __init__(self, x: Array, rows: NDArray[np.int64]) -> None:
        self.x, self.rows = x, rows
        self.squares = np.einsum("ij,ij->i", x, x)


def _blocks(read: Reader, rows: NDArray[np.int64], n_genes: int, most: int) -> Iterator[_Dense]:
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        x, at = np.zeros((len(some), n_genes)), 0
        numbers = np.empty(len(some), np.int64)
        for block in read(some):
            n = len(block.rows)
            cell = np.repeat(np.arange(at, at + n), np.diff(block.indptr))
            x[cell, block.indices] = block.data
            numbers[at : at + n] = block.rows
            at += n
        yield _Dense(x, numbers)


def _distances(a: _Dense, b: _Dense) -> Array:
    """Euclidean distances; exactly 0 from a cell to itself."""
    squared = a.squares[:, None] + b.squares - 2 * (a.x @ b.x.T)
    np.maximum(squared, 0, out=squared)
    squared[a.rows[:, None] == b.rows] = 0
    found: Array = np.sqrt(squared, out=squared)
    return found
