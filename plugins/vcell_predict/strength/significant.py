"""The genes that a group of cells changes against the controls, by the challenge's rank-sum test.

G genes tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import special
from vcell.data.block import Block
from vcell.metrics import significance
from vcell.metrics.groups import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Blocks = Callable[[], Iterable[Block]]

ALPHA = 0.05


def as_block(cells: sp.csr_array, rows: NDArray[np.int64]) -> Block:
    """Return cells as a block of the rows `rows`."""
    cells.sort_indices()
    return Block(
        start=int(rows[0]) if len(rows) else 0,
        rows=rows,
        indptr=cells.indptr.astype(np.int64),
        indices=cells.indices.astype(np.int32),
        data=cells.data.astype(np.float32),
        n_genes=cells.shape[1],
    )


def z_scores(controls: sp.csr_array, groups: Sequence[sp.csr_array]) -> Array:
    """Return signed z-scores (groups, G) of each group of cells against the controls."""
    parts = [controls, *groups]
    ends = np.cumsum([0, *(part.shape[0] for part in parts)])
    blocks = [as_block(part, np.arange(ends[i], ends[i + 1])) for i, part in enumerate(parts)]
    group = np.repeat(np.arange(len(parts)), np.diff(ends)).astype(np.int32)
    return z_of(lambda: blocks, group, len(parts), controls.shape[1])


def z_of(blocks: Blocks, group: NDArray[np.int32], n_groups: int, n_genes: int) -> Array:
    """Return signed z-scores (groups - 1, G) of groups 1, 2, ... of streamed cells against 0."""
    found = summarise(blocks, group, n_groups, n_genes)
    sizes = found.sizes
    _, z = significance.wilcoxon(found.u[1:], found.ties[1:], sizes[1:, None], sizes[:1, None])
    return z


def called(z: Array) -> NDArray[np.bool_]:
    """Return which genes of each row (groups, G) have a false discovery rate below 0.05."""
    return significance.benjamini_hochberg(2 * special.ndtr(-np.abs(z))) < ALPHA


def count(z: Array) -> NDArray[np.int64]:
    """Return the number of such genes of each row."""
    return np.asarray(called(z).sum(axis=1), np.int64)
