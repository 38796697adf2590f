"""Histograms of the counts of each gene: all that flavour "seurat_v3" needs, in one pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels import clipped
from vcell.kernels.clipped import SMALL
from vcell.passes.engine import LANES, CellSpan, Reducer, Task, shares_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CountHistogram(Reducer):
    """Histogram of the counts of each gene, and a list of counts beyond the histogram.

    A few threads fill one histogram each. `overflowed`: the list became too long, and `large` is
    incomplete. `fractional`: some values do not fit a histogram (not whole, or negative).

    Parameters
    ----------
    bins
        Number of counts, from `SMALL` on, that have a column.
    max_large
        Maximum length of the list.
    """

    ROOM = 1 << 14  # entries of a task's list, unless it finds more

    def __init__(
        self,
        n_genes: int,
        *,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        bins: int = 240,
        max_large: int = 1 << 18,
    ) -> None:
        self.codes = codes
        self.shape = (n_batches, n_genes)
        self.bins = bins
        self.max_large = max_large
        self.overflowed = False
        self.fractional = False
        self._own: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = {}
        self._large: list[NDArray[np.float64]] = []
        self._fresh = 0  # entries since the list was last compressed
        self._lock = threading.Lock()

    @staticmethod
    def bytes_of(n_genes: int, n_batches: int, bins: int) -> int:
        """Return the bytes in memory."""
        return 4 * n_genes * n_batches * (SMALL + bins) * LANES

    def tasks(self, part: CellSpan, threads: int) -> Iterator[Task]:
        """Return tasks for a part."""
        codes = part.codes(self.codes)
        for slot, (a, b) in enumerate(shares_of(len(codes), min(threads, LANES))):
            yield lambda s=slot, a=a, b=b: self._count(s, part, a, b, codes)  # type: ignore[misc]

    def _count(self, slot: int, part: CellSpan, a: int, b: int, codes: NDArray[np.int32]) -> None:
        small, high = self._lane(slot)
        rows = (part.indptr[a : b + 1], part.indices, part.data, codes[a:b])
        large = np.empty((self.ROOM, 3))
        found, odd = clipped.count_histogram(*rows, small, high, large)
        if odd:
            self.fractional = True
        if found > len(large):
            large = np.empty((found, 3))
            clipped.list_large(*rows, float(SMALL + self.bins), large)
        with self._lock:
            self._large.append(np.column_stack([large[:found], np.ones(found)]))
            self._fresh += found
            if self._fresh > self.max_large // 4:
                self._compress()

    def _lane(self, slot: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if slot not in self._own:
            self._own[slot] = (
                np.zeros((*self.shape, SMALL), np.int32),
                np.zeros((*self.shape, self.bins), np.int32),
            )
        return self._own[slot]

    def _compress(self) -> None:
        """Merge equal entries of the list: few genes have all the large counts."""
        rows = self.large
        order = np.lexsort(rows[:, :3].T)
        rows = rows[order]
        first = np.flatnonzero(np.any(np.diff(rows[:, :3], axis=0, prepend=-1.0) != 0, axis=1))
        times = np.add.reduceat(rows[:, 3], first) if len(first) else rows[:, 3]
        self._large = [np.column_stack([rows[first, :3], times])]
        self._fresh = 0
        if len(first) > self.max_large:
            self.overflowed = True
            self._large = []

    def collect(self) -> None:
        """Add up the threads' histograms."""
        self._compress()
        small, high = self._lane(0)
        for slot in sorted(self._own)[1:]:
            small += self._own[slot][0]
            high += self._own[slot][1]
            del self._own[slot]

    @property
    def small(self) -> NDArray[np.int32]:
        """Counts of the values below `SMALL`, ``[B, G, SMALL]``, once collected."""
        return self._lane(0)[0]

    @property
    def high(self) -> NDArray[np.int32]:
        """Counts of the values from `SMALL` on, ``[B, G, bins]``, once collected."""
        return self._lane(0)[1]

    @property
    def large(self) -> NDArray[np.float64]:
        """Batch, gene, value and frequency of every larger count, ``[L, 4]``."""
        return np.concatenate(self._large) if self._large else np.empty((0, 4))

    def export(self) -> list[NDArray[Any]]:
        """Return the histograms and the list."""
        self.collect()
        flags = np.array([self.overflowed, self.fractional])
        return [self.small, self.high, self.large, flags]

    def merge(self, exported: Sequence[NDArray[Any]]) -> None:
        """Add histograms and a list from elsewhere."""
        self.collect()
        small, high = self._lane(0)
        small += exported[0]
        high += exported[1]
        self._large.append(exported[2])
        self._compress()
        self.overflowed |= bool(exported[3][0])
        self.fractional |= bool(exported[3][1])
