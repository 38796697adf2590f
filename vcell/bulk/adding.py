"""Add up the cells of samples on several threads: see `vcell.kernels.drawn`.

Cells are counted for `SAMPLES` samples at once, into bytes; the sums that the caller gets are those
of a few of them, so that they are still in the processor's cache when they are written to a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.bulk.packed import lines
from vcell.cores import share
from vcell.data.buffers import Buffers, pages
from vcell.data.detect import LARGEST_COUNT
from vcell.kernels.counters import RUN, TURNED
from vcell.kernels.drawn import (
    SAMPLE_LANES,
    SAMPLES,
    add_listed,
    add_table,
    complete,
    find,
    mark,
)
from vcell.kernels.packing import GENE_LANES

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from vcell.bulk.packed import GeneOrder, PackedCells

_SHARES = 4  # tasks per thread, since genes differ in work
_CACHED = 2048  # cells of a range: their rows of a plane stay in the cache for all samples
_WORTH = 128  # drawn cells of a range for which it pays to return to a sample's counters
_SELDOM = 0.5  # below this share of cells with a bit, these cells are searched first


class Adder:
    """Adds cells up; a context manager, which ends its threads.

    Parameters
    ----------
    order
        Where counts are stored.
    width
        Number of genes.
    cells
        Number of cells of a sample.
    threads
        Number of threads.
    """

    def __init__(self, order: GeneOrder, width: int, cells: int, threads: int) -> None:
        self._order, self._width, self._cells, self._threads = order, width, cells, threads
        self._tops, depths = _depths(order, cells)
        self._depths = np.array(depths, np.int64)
        self._at = np.append(0, np.cumsum(SAMPLES * self._depths))
        self._counters = lines(max(int(self._at[-1]), 1), GENE_LANES)
        self._low = pages(SAMPLES * TURNED * -(-width // TURNED)).reshape(
            -1, SAMPLES // RUN, TURNED, RUN
        )
        self._room = 64  # genes of a task with sums above a byte
        self._buffers = Buffers(keep=2)  # reused once the caller has released earlier samples
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Adder:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def sums(
        self, pieces: Iterator[PackedCells] | Sequence[PackedCells], cells: NDArray[np.int32]
    ) -> Iterator[NDArray[Any]]:
        """Yield the sums of samples, ``[S, G]``, some at a time.

        Parameters
        ----------
        pieces
            All cells of the samples.
        cells
            ``[S, n]`` the cells of each sample, ascending.
        """
        if isinstance(pieces, Sequence) and len(pieces) == 1 and len(cells) <= SAMPLES:
            self._count(pieces[0], cells)
            n, step = len(cells), RUN * max(self._threads, 2)
            del cells
            for first in range(0, n, step):
                sums = self._take(min(step, n - first), self._kind(pieces[0]))
                self._complete(sums, first, new=True)
                yield sums
                del sums
            return
        sums = self._take(len(cells), np.int32)
        sums[:] = 0
        for piece in pieces:
            sums = sums.astype(np.promote_types(sums.dtype, self._kind(piece)), copy=False)
            for first in range(0, len(cells), SAMPLES):
                some = slice(first, first + SAMPLES)
                self._count(piece, cells[some])
                self._complete(sums[some], 0, new=False)
        yield sums

    def _kind(self, piece: PackedCells) -> type[np.int32 | np.int64]:
        return np.int64 if piece.largest * self._cells > LARGEST_COUNT else np.int32

    def _take(self, n: int, kind: type[np.int32 | np.int64]) -> NDArray[Any]:
        return self._buffers.take(n * self._width, kind).reshape(n, self._width)

    def _share(self, work: Callable[[int, int], None], n: int) -> None:
        share(self._pool, work, n, _SHARES * self._threads)

    def _count(self, piece: PackedCells, cells: NDArray[np.int32]) -> None:
        """Add up the cells that are in a piece, for at most `SAMPLES` samples."""
        n, first = len(piece), piece.first
        parts = max(min(n // _CACHED, cells.shape[1] // _WORTH), 1)
        bounds = first + np.linspace(0, n, parts + 1).astype(np.int64)
        cuts = np.empty((len(cells), parts + 1), np.int64)
        levels = int(find(cells, bounds, cuts)).bit_length()
        bits = lines(levels, n + 1, SAMPLE_LANES)
        often = np.zeros((levels, n), np.uint8)
        mark(cells, cuts, first, bits, often)
        rows = (cells - first).astype(np.uint16)  # those outside the piece are not used
        seldom = often.mean(axis=1) < _SELDOM
        order, large = self._order, []

        def table(begin: int, end: int) -> None:
            add_table(
                piece.table, order.planes, rows, cuts, begin, end, self._tops, self._at,
                self._counters,
            )  # fmt: skip

        def listed(begin: int, end: int) -> None:
            needed = self._room
            while True:
                genes, high = np.empty(needed, np.int32), np.empty((needed, SAMPLES), np.int64)
                needed = add_listed(
                    piece.starts, piece.ones, order.level, piece.more_starts, piece.more_levels,
                    piece.more, bits, often, seldom, begin, end, self._low, genes, high,
                )  # fmt: skip
                if needed <= len(genes):
                    break
                self._room = max(self._room, needed)
            large.append((genes[:needed], high[:needed]))

        self._share(table, len(order.starts) - 1)  # whole blocks, so that their planes are cached
        self._share(listed, self._width)
        genes, high = zip(*large, strict=True) if large else ((), ())
        self._high = np.concatenate(genes), np.concatenate(high)

    def _complete(self, sums: NDArray[Any], first: int, *, new: bool) -> None:
        """Put the sums of samples from `first` on into an array, or add them to it."""
        order, old = self._order, -int(not new)

        def work(begin: int, end: int) -> None:
            complete(
                self._low, *self._high, self._counters, self._at, self._depths, order.starts,
                order.order, old, first, begin * RUN, min(end * RUN, len(sums)), sums,
            )  # fmt: skip

        self._share(work, -(-len(sums) // RUN))


def _depths(order: GeneOrder, cells: int) -> tuple[NDArray[np.int64], list[int]]:
    """Return for `add_table` the planes of counters up to each plane, and those of each block."""
    tops: list[int] = []
    depths = []
    for n in np.diff(order.planes).tolist():
        tops += [max((cells * ((2 << k) - 1)).bit_length(), k + 4) for k in range(n)]
        depths.append(tops[-1])
    return np.array(tops, np.int64), depths
