"""Second pass: the matrix of the store, in the final order of cells.

A spill in files is sorted bucket by bucket, and split into chunks that threads compress and that
are appended to the current shard of column ids and of values. A killed run keeps its complete
shards. `held` does the same for a spill in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data.buffers import Buffers
from vcell.data.descriptor import read_into
from vcell.errors import UserError
from vcell.kernels import gather, scatter
from vcell.store.build.first_pass import ESCAPED, Spill, index_type
from vcell.store.build.held import HeldBuild
from vcell.store.build.shard_stream import ShardStream
from vcell.store.priority_pool import PriorityPool
from vcell.store.shards import (
    CHUNK,
    CHUNKS_PER_SHARD,
    Codec,
    ShardLayout,
    encode,
    full_chunk,
    write_metadata,
)

if TYPE_CHECKING:
    from vcell.store.build.workdir import BuildJournal

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputMatrix:
    """Columns and types of the store's matrix."""

    column: NDArray[np.int32]  # of every spilled column: its column in the store, or -1
    value_type: np.dtype[Any]
    #: Nothing is dropped, and rows are in order: the spilled columns are those of the store.
    all_columns: bool

    @property
    def index_type(self) -> np.dtype[Any]:
        """Type of the column ids."""
        return index_type(int(self.column.max(initial=-1)) + 1)

    @property
    def counts(self) -> bool:
        """Whether the values are whole numbers."""
        return self.value_type.kind == "u"


def write_matrix(
    spill: Spill,
    column: NDArray[np.int32],
    value_type: np.dtype[Any],
    folder: Path,
    journal: BuildJournal,
    codec: Codec,
    threads: int,
) -> NDArray[np.int64]:
    """Write the unfinished shards of a store; return its row pointers."""
    chosen = spill.column[spill.column >= 0]
    all_columns = bool((column >= 0).all() and (np.diff(chosen) > 0).all())
    target = OutputMatrix(column, value_type, all_columns)
    per_shard = min(max(-(-spill.elements // CHUNK), 1), CHUNKS_PER_SHARD)
    stream = ShardStream(folder, journal, per_shard, PriorityPool(threads))
    try:
        if spill.held is not None:
            indptr = HeldBuild(spill, spill.held, target, codec).run(stream)
        else:
            indptr = Build(spill, target).run(stream, codec)
    finally:
        stream.close()
    size = int(indptr[-1])
    indices = ShardLayout(target.index_type, size, codec, CHUNK, per_shard)
    data = ShardLayout(value_type, size, codec, CHUNK, per_shard, counts=target.counts)
    write_metadata(folder / "X" / "indices", indices)
    write_metadata(folder / "X" / "data", data)
    return indptr


@dataclass
class Build:
    """The second pass over one spill in files."""

    spill: Spill
    target: OutputMatrix
    _memory: Buffers = field(default_factory=Buffers)
    _segments: NDArray[np.int64] = field(init=False)
    _escaped: Array = field(init=False)
    _ranked: NDArray[np.integer[Any]] = field(init=False)  # cells in their final order

    def __post_init__(self) -> None:
        folder = self.spill.folder
        self._ranked = self.spill.in_order()
        table = np.fromfile(folder / "segments.spill", np.int64)
        self._segments = table.reshape(-1, self.spill.n_buckets)
        self._escaped = np.sort(np.fromfile(folder / "escaped.spill", ESCAPED), order="position")

    def run(self, stream: ShardStream, codec: Codec) -> NDArray[np.int64]:
        """Write the unfinished shards; return the row pointers of the store."""
        n_kept = int((self.spill.cells.length >= 0).sum())
        lengths: NDArray[np.int64] = np.zeros(n_kept, np.int64)
        if n_kept:
            path = self.spill.folder / "lengths.bin"
            mode: Literal["r+", "w+"] = "r+" if path.exists() else "w+"
            lengths = np.memmap(path, np.int64, mode, shape=(n_kept,))
        flush = lengths.flush if isinstance(lengths, np.memmap) else None
        chunks = _ChunkCutter(self, stream, codec, flush)
        reader = PriorityPool(1)
        try:
            with console.progress("writing", n_kept) as bar:
                begins = self._bucket_begin
                for bucket, idx, val, new in self._buckets(reader, chunks.first_bucket()):
                    row = int(begins[bucket])
                    lengths[row : row + len(new)] = new
                    chunks.add(idx, val)
                    bar.advance(len(new), read=idx.nbytes + val.nbytes)
                chunks.finish()
        finally:
            reader.close()
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    @property
    def _bucket_begin(self) -> NDArray[np.int64]:
        """First row in the store of each bucket."""
        kept = self.spill.bucket[self.spill.cells.length >= 0]
        counts = np.bincount(kept, minlength=self.spill.n_buckets)
        return np.concatenate([[0], np.cumsum(counts)])

    def _buckets(
        self, reader: PriorityPool, first: int
    ) -> Iterator[tuple[int, Array, Array, NDArray[np.int64]]]:
        """Yield each bucket's sorted elements and row lengths; the next bucket is prefetched."""
        ahead: deque[tuple[int, Future[Any]]] = deque()
        for bucket in range(first, self.spill.n_buckets):
            ahead.append((bucket, reader.submit(0, partial(self._bucket, bucket))))
            if len(ahead) > 1:
                number, future = ahead.popleft()
                yield number, *future.result()
        while ahead:
            number, future = ahead.popleft()
            yield number, *future.result()

    def _bucket(self, bucket: int) -> tuple[Array, Array, NDArray[np.int64]]:
        spill = self.spill
        n, parts = len(self._ranked), spill.n_buckets
        # a bucket is a range of ranks; its cells were spilled in the order of the file
        cells = np.sort(self._ranked[-(-bucket * n // parts) : -(-(bucket + 1) * n // parts)])
        cells = cells[spill.cells.length[cells] >= 0]
        length = np.asarray(spill.cells.length[cells])
        n = int(length.sum())
        idx = self._memory.take(n, spill.index_type)
        val = self._memory.take(n, spill.value_type)
        spans = self._spans(bucket)
        _read_spans(spill.folder / "idx.spill", spans, idx)
        _read_spans(spill.folder / "val.spill", spans, val)
        if self.target.value_type.itemsize > val.dtype.itemsize:
            val = val.astype(self.target.value_type)
            self._put_back_escaped(spans, val)
        src = np.cumsum(length) - length
        order = np.argsort(spill.rank[cells])
        src, length = src[order], length[order]
        idx_out = self._memory.take(n, self.target.index_type)
        val_out = self._memory.take(n, self.target.value_type)
        if self.target.all_columns:
            dst = np.cumsum(length) - length
            gather.copy_rows(idx, val, src, length, dst, 0, len(cells), idx_out, val_out)
            return idx_out, val_out, length
        new = np.empty(len(cells), np.int64)
        n = scatter.reorder(idx, val, src, length, self.target.column, idx_out, val_out, new)
        return idx_out[:n], val_out[:n], new

    def _spans(self, bucket: int) -> NDArray[np.int64]:
        """Return start and end of the bucket's elements in every block of the spill."""
        begins = self._segments[:, bucket]
        if bucket + 1 < self.spill.n_buckets:  # a copy of the whole table would be quadratic
            ends = self._segments[:, bucket + 1]
        else:
            ends = np.append(self._segments[1:, 0], self.spill.elements)
        return np.stack([begins, ends], axis=1)

    def _put_back_escaped(self, spans: NDArray[np.int64], val: Array) -> None:
        """Replace the sentinels of counts that did not fit the spill."""
        offset = 0
        for begin, end in spans.tolist():
            a, b = np.searchsorted(self._escaped["position"], [begin, end])
            here = self._escaped[a:b]
            val[here["position"] - begin + offset] = here["value"]
            offset += end - begin


class _ChunkCutter:
    """Cuts the elements of buckets into chunks, and records the progress in the journal."""

    def __init__(
        self, build: Build, stream: ShardStream, codec: Codec, flush: Callable[[], None] | None
    ) -> None:
        self.target, self.stream, self.codec = build.target, stream, codec
        state = stream.journal.state
        stream.shard = int(state.get("shards", 0))
        #: Elements before the end of each finished bucket: a resumed run starts reading there.
        self.ends: list[int] = state.get("bucket_ends", [])
        first = self.first_bucket()
        self.skip = self._finished - (self.ends[first - 1] if first else 0)
        self.ends = self.ends[:first]
        self.position = self.ends[-1] if self.ends else 0
        target = self.target
        self.tails: list[Array] = [np.empty(0, target.index_type), np.empty(0, target.value_type)]
        stream.on_shard = lambda: build.spill.step(
            stream.journal, flush, phase="write", shards=stream.shard, bucket_ends=[*self.ends]
        )

    @property
    def _finished(self) -> int:
        """Number of elements in finished shards."""
        return self.stream.shard * self.stream.per_shard * CHUNK

    def first_bucket(self) -> int:
        """Return the bucket that holds the first element that is not in a finished shard."""
        return sum(end <= self._finished for end in self.ends)

    def add(self, idx: Array, val: Array) -> None:
        """Add a bucket's elements."""
        end = self.position + len(idx)
        arrays = [idx[self.skip :], val[self.skip :]]
        self.skip = max(self.skip - len(idx), 0)
        need = CHUNK - len(self.tails[0])
        if len(self.tails[0]) and len(arrays[0]) >= need:
            self._chunk(
                *(np.concatenate([t, x[:need]]) for t, x in zip(self.tails, arrays, strict=True))
            )
            arrays = [x[need:] for x in arrays]
            self.tails = [t[:0] for t in self.tails]
        whole = 0 if len(self.tails[0]) else len(arrays[0]) // CHUNK * CHUNK
        for a in range(0, whole, CHUNK):
            self._chunk(*(x[a : a + CHUNK] for x in arrays))
        self.tails = [
            np.concatenate([t, x[whole:]]) for t, x in zip(self.tails, arrays, strict=True)
        ]
        self.position = end
        self.ends.append(end)

    def finish(self) -> None:
        """Write what is left as the last, shorter shard."""
        if len(self.tails[0]):
            self._chunk(*(full_chunk(t) for t in self.tails))
        self.stream.finish()

    def _chunk(self, idx: Array, val: Array) -> None:
        counts = self.target.counts
        self.stream.submit(
            lambda: [(encode(idx, self.codec), encode(val, self.codec, counts=counts))]
        )


def _read_spans(path: Path, spans: NDArray[np.int64], out: Array) -> None:
    """Read element ranges of a file consecutively into `out`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        at = 0
        for begin, end in spans.tolist():
            got = read_into(fd, out[at : at + end - begin], begin * out.itemsize)
            at += got // out.itemsize
    finally:
        os.close(fd)
    if at != len(out):
        raise UserError(f"{path} was cut short", hint="run the command again")
