"""Reading ranges of a stored array into memory.

An `Array` has a shape, a type, and one method, which returns the tasks that copy ranges of its
rows, one after the other, into the caller's array. `PlainArray` uses the slicing of h5py, zarr or
numpy; `vcell.data.chunked` is faster for HDF5.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.data import decode_pool
from vcell.data.fault import damaged, reading

if TYPE_CHECKING:
    from vcell.data.decode_pool import Task
    from vcell.data.nodes import Node

Ranges = NDArray[np.int64]


class Array(Protocol):
    """A stored array whose rows (first axis) are read by ranges."""

    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type, in this machine's byte order."""
        ...

    def tasks(self, starts: Ranges, stops: Ranges, out: NDArray[Any]) -> list[Task]:
        """Return calls that copy rows ``starts[i]:stops[i]`` one after the other into `out`.

        Ranges must ascend and not be empty. The calls may run on any threads in any order.
        """
        ...


class PlainArray:
    """An array read by the slicing of h5py, zarr or numpy."""

    def __init__(self, node: Node, where: str) -> None:
        self.node, self.where = node, where
        self.shape: tuple[int, ...] = tuple(int(n) for n in node.shape)
        self.dtype: np.dtype[Any] = np.dtype(node.dtype).newbyteorder("=")
        chunks = getattr(node, "chunks", None)
        # Reading over gaps within a chunk costs nothing; each call costs a fifth of a millisecond.
        self._gap = int(chunks[0]) if chunks else 1024

    def tasks(self, starts: Ranges, stops: Ranges, out: NDArray[Any]) -> list[Task]:
        """Read spans of neighbouring ranges, and copy the ranges out of them."""
        tasks: list[Task] = []
        at = 0
        for first, last in spans(starts, stops, self._gap):
            size = int((stops[first:last] - starts[first:last]).sum())
            tasks.append(self._span(starts[first:last], stops[first:last], out[at : at + size]))
            at += size
        return tasks

    def _span(self, starts: Ranges, stops: Ranges, out: NDArray[Any]) -> Task:
        def run() -> None:
            begin, end = int(starts[0]), int(stops[-1])
            with reading(self.where):
                held = self.node[begin:end]
            if len(held) != end - begin:
                raise damaged(self.where, f"ends before element {end:,}")
            at = 0
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                out[at : at + stop - start] = held[start - begin : stop - begin]
                at += stop - start

        return run


def read(wanted: list[tuple[Array, Ranges, Ranges, NDArray[Any]]]) -> None:
    """Read ranges of several arrays at once, on the decoding threads."""
    tasks = [task for array, *rest in wanted for task in array.tasks(*rest)]
    if len(tasks) <= 1:
        for task in tasks:
            task()
    else:
        decode_pool.finish(decode_pool.start(tasks))


def spans(starts: Ranges, stops: Ranges, gap: int) -> list[tuple[int, int]]:
    """Group ranges whose gaps are at most `gap`: half-open ranges of their numbers."""
    if not len(starts):
        return []
    breaks = np.flatnonzero(starts[1:] - stops[:-1] > gap) + 1
    edges = [0, *breaks.tolist(), len(starts)]
    return list(itertools.pairwise(edges))


def joined_ranges(starts: Ranges, stops: Ranges) -> tuple[Ranges, Ranges]:
    """Join ranges that follow each other without a gap, and drop empty ones."""
    full = stops > starts
    starts, stops = starts[full], stops[full]
    if not len(starts):
        return starts, stops
    new = np.concatenate([[True], starts[1:] != stops[:-1]])
    last = np.concatenate([new[1:], [True]])
    return starts[new], stops[last]
