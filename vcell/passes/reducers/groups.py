"""Sums per group of cells: pseudobulk, and moments for a test per perturbation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels import groups
from vcell.passes.engine import CellSpan, Reducer, Task
from vcell.passes.reducers.genes import cell_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _GroupSums(Reducer):
    """Whole-number sums per group of cells; groups are divided among threads."""

    total: NDArray[np.int64]

    def __init__(self, codes: NDArray[np.int32]) -> None:
        self.codes = codes

    def _add(self, part: CellSpan, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        """Add the cells of `order` to their groups."""
        raise NotImplementedError

    def tasks(self, part: CellSpan, threads: int) -> Iterator[Task]:
        """Return tasks for a part."""
        codes = part.codes(self.codes)
        order = groups.cells_by_group(codes)
        for lane in range(threads):
            own = order[codes[order] % threads == lane]
            if len(own):
                yield lambda own=own: self._add(part, codes, own)  # type: ignore[misc]

    def export(self) -> list[NDArray[Any]]:
        """Return the sums."""
        return [self.total]

    def merge(self, exported: Sequence[NDArray[Any]]) -> None:
        """Add sums from elsewhere."""
        self.total += exported[0]


class GroupSums(_GroupSums):
    """Sums of stored values per group: pseudobulk. ``sums`` is ``[P, G]`` float64.

    Counts add up exactly; with `whole` false values are rounded to 2**-20.
    """

    def __init__(
        self, n_genes: int, codes: NDArray[np.int32], n_groups: int, *, whole: bool = True
    ) -> None:
        super().__init__(codes)
        self.unit = 1.0 if whole else float(1 << 20)
        self.total = np.zeros((n_groups, n_genes), np.int64)

    def _add(self, part: CellSpan, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        groups.group_sums(part.indptr, part.indices, part.data, codes, order, self.unit, self.total)

    @property
    def sums(self) -> NDArray[np.float64]:
        """The sums ``[P, G]``."""
        return self.total / self.unit


class GroupLogMoments(_GroupSums):
    """Sum and sum of squares of log-normalised values per group: ``total[P, G, 2]`` times 2**30.

    With ``target_sum=None`` the stored values are log1p already.
    """

    def __init__(
        self, n_genes: int, codes: NDArray[np.int32], n_groups: int, *, target_sum: float | None
    ) -> None:
        super().__init__(codes)
        self.target_sum = target_sum
        self.total = np.zeros((n_groups, n_genes, 2), np.int64)

    def _add(self, part: CellSpan, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        if self.target_sum is None:
            groups.group_moments(part.indptr, part.indices, part.data, codes, order, self.total)
        else:
            scale = cell_scale(part.totals, self.target_sum)
            groups.group_log_moments(
                part.indptr, part.indices, part.data, codes, scale, order, self.total
            )
