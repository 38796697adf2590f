"""Second pass over a spill in memory.

Rows lie there in the order of the file. Threads copy those of a few chunks in the final order, and
compress them at once: nothing is sorted into buckets, and nothing is written but the store.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data.buffers import Scratch
from vcell.kernels import gather, scatter
from vcell.store.build.first_pass import ESCAPED
from vcell.store.shards import CHUNK, Codec, encode, full_chunk

if TYPE_CHECKING:
    from vcell.store.build.first_pass import HeldSpill, Spill
    from vcell.store.build.second_pass import OutputMatrix
    from vcell.store.build.shard_stream import Coded, ShardStream
    from vcell.store.priority_pool import PriorityPool

Array = NDArray[Any]

#: Chunks that a task copies and compresses: few enough to stay in a core's cache.
_GROUP = 4
#: Rows that a task counts.
_ROWS = 2048
_scratch = Scratch()


class HeldBuild:
    """The second pass over a spill in memory."""

    def __init__(self, spill: Spill, held: HeldSpill, target: OutputMatrix, codec: Codec) -> None:
        self.held, self.target, self.codec = held, target, codec
        length = spill.cells.length
        kept = length >= 0
        begin = np.cumsum(np.where(kept, length, 0)) - length
        order = spill.in_order()
        order = order[kept[order]]
        self._src: NDArray[np.int64] = begin[order]
        self._length: NDArray[np.int64] = np.asarray(length[order])
        self._escaped = np.sort(
            np.concatenate([np.empty(0, ESCAPED), *held.escaped]), order="position"
        )

    def run(self, stream: ShardStream) -> NDArray[np.int64]:
        """Write all shards; return the row pointers of the store."""
        lengths = self._lengths(stream.pool)
        self._indptr: NDArray[np.int64] = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=self._indptr[1:])
        n_chunks = -(-int(self._indptr[-1]) // CHUNK)
        with console.progress("writing", n_chunks, "chunks") as bar:
            for first in range(0, n_chunks, _GROUP):
                stream.submit(partial(self._group, first, min(first + _GROUP, n_chunks)))
                bar.advance(min(_GROUP, n_chunks - first))
            stream.finish()
        return self._indptr

    def _lengths(self, pool: PriorityPool) -> NDArray[np.int64]:
        """Count the elements of each row of the store."""
        if self.target.all_columns:
            return self._length
        out = np.empty(len(self._length), np.int64)

        def count(a: int) -> None:
            part = slice(a, a + _ROWS)
            src, length = self._src[part], self._length[part]
            gather.count_columns(self.held.idx, src, length, self.target.column, out[part])

        for done in pool.submit_all(0, [partial(count, a) for a in range(0, len(out), _ROWS)]):
            done.result()
        return out

    def _group(self, first: int, last: int) -> Coded:
        """Compress some chunks."""
        a, b = first * CHUNK, min(last * CHUNK, int(self._indptr[-1]))
        row = int(np.searchsorted(self._indptr, a, side="right")) - 1
        idx, val = self._rows(row, int(np.searchsorted(self._indptr, b)))
        skip, stop = a - int(self._indptr[row]), b - int(self._indptr[row])
        parts = [slice(at, min(at + CHUNK, stop)) for at in range(skip, stop, CHUNK)]
        return [
            (
                encode(full_chunk(idx[part]), self.codec),
                encode(full_chunk(val[part]), self.codec, counts=self.target.counts),
            )
            for part in parts
        ]

    def _rows(self, first: int, last: int) -> tuple[Array, Array]:
        """Copy rows of the store, in its types."""
        idx, val = self.held.idx, self.held.val
        src, length = self._src[first:last], self._length[first:last]
        end = np.cumsum(length)
        n = int(end[-1])
        ids = _scratch.take("idx", n, self.target.index_type)
        values = _scratch.take("val", n, self.target.value_type)
        if self.target.value_type.itemsize > val.dtype.itemsize:
            idx, val, src = *self._with_escaped(src, length, end - length, n), end - length
        if self.target.all_columns:
            gather.copy_rows(idx, val, src, length, end - length, 0, len(src), ids, values)
        else:
            new = np.empty(len(src), np.int64)
            scatter.reorder(idx, val, src, length, self.target.column, ids, values, new)
        return ids, values

    def _with_escaped(self, src: Array, length: Array, dst: Array, n: int) -> tuple[Array, Array]:
        """Copy rows as they are in the spill, with the counts that did not fit."""
        idx = _scratch.take("spilled idx", n, self.held.idx.dtype)
        val = _scratch.take("spilled val", n, self.target.value_type)
        gather.copy_rows(self.held.idx, self.held.val, src, length, dst, 0, len(src), idx, val)
        at = self._escaped["position"]
        begins, ends = np.searchsorted(at, src), np.searchsorted(at, src + length)
        for k in np.flatnonzero(ends > begins):
            some = slice(begins[k], ends[k])
            val[at[some] - src[k] + dst[k]] = self._escaped["value"][some]
        return idx, val
