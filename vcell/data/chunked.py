"""Arrays of an HDF5 file read without the HDF5 library, which decodes under a global lock.

The library gives the offset of each chunk once; the chunks are then read by offset and decoded on
vcell's threads, directly into the caller's array. Exceptions (big-endian numbers, unusual filters,
skipped filters, missing chunks) go through h5py, with a message.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import decode
from vcell.data.arrays import Array, PlainArray, Ranges
from vcell.data.buffers import Scratch
from vcell.data.fault import damaged, reading
from vcell.data.nodes import load_plugins

if TYPE_CHECKING:
    from vcell.data.decode_pool import Task
    from vcell.data.descriptor import Descriptor

#: Bytes per task: enough to hide the cost of submitting it, few enough to balance threads.
TASK_BYTES = 1 << 20
#: Messages about slower reading appear only for arrays of at least this many bytes.
SAY_FROM = 1 << 24
#: h5py finds chunks one by one until this share of a long chunk list has been read; then all chunks
#: are listed. (A pass over a large file reads a small share many times.)
FEW_CHUNKS = 1 / 64
#: Number of chunks of a long list.
LONG_LIST = 4096

_scratch = Scratch()
_said: set[str] = set()


def array_of(dataset: h5py.Dataset, where: str, file: Descriptor) -> Array:
    """Return the fastest reader of a data set."""
    plain = PlainArray(dataset, where)
    load_plugins(dataset)
    reason = _why_not(dataset)
    if reason:
        _say_slow(where, reason, plain)
        return plain
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:  # nothing was written: all fill value
            return plain
        return ContiguousArray(plain, file, int(offset))
    return ChunkedArray(plain, file)


def _why_not(dataset: h5py.Dataset) -> str | None:
    """Return why HDF5 itself must read a data set, or None."""
    dtype, plist = dataset.dtype, dataset.id.get_create_plist()
    if dataset.file.userblock_size:
        return "the file has a user block"
    if dtype.kind not in "iuf" or dtype.byteorder == ">":
        return (
            f"its type is {dtype.newbyteorder('=')}, big-endian"
            if dtype.byteorder == ">"
            else (f"its type is {dtype}")
        )
    if dataset.id.get_type() != h5py.h5t.py_create(dtype):
        return "its numbers are laid out unusually"
    if dataset.is_virtual or dataset.external:
        return "it lies in other files"
    if plist.get_layout() == h5py.h5d.COMPACT:
        return None if not dataset.size else "it lies in the header"
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    for code in codes:
        if code != decode.SHUFFLE and decode.decoder(code) is None:
            return f"it is compressed by filter {code}"
    return None


def _say_slow(where: str, reason: str, array: Array) -> None:
    size = int(np.prod(array.shape, dtype=np.float64)) * array.dtype.itemsize
    tell = console.say if size >= SAY_FROM else console.detail
    tell(f"{where} is read through HDF5's own decoder, several times slower: {reason}")


def _say_zlib(stored: int) -> None:
    """Report once that a faster decoder could be installed."""
    if stored >= SAY_FROM and decode.inflater_name() == "zlib" and "zlib" not in _said:
        _said.add("zlib")
        console.say("gzip is decoded by Python's zlib: pip install imagecodecs reads twice as fast")


class ContiguousArray:
    """An uncompressed array in one piece."""

    def __init__(self, plain: PlainArray, file: Descriptor, offset: int) -> None:
        self.where, self.shape, self.dtype = plain.where, plain.shape, plain.dtype
        self._file, self._offset = file, offset
        self._row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if offset + self.shape[0] * self._row > file.size:
            raise damaged(self.where, "goes beyond the end of the file")

    def tasks(self, starts: Ranges, stops: Ranges, out: NDArray[Any]) -> list[Task]:
        """Read each range in pieces."""
        tasks: list[Task] = []
        step = max(1, TASK_BYTES * 4 // max(self._row, 1))
        at = 0
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            for a in range(start, stop, step):
                n = min(step, stop - a)
                tasks.append(self._piece(a, out[at : at + n]))
                at += n
        return tasks

    def _piece(self, start: int, out: NDArray[Any]) -> Task:
        def run() -> None:
            with reading(self.where):
                if out.dtype == self.dtype:
                    self._file.read_into(out, self._offset + start * self._row)
                else:
                    held = np.empty(out.shape, self.dtype)
                    self._file.read_into(held, self._offset + start * self._row)
                    out[...] = held

        return run


@dataclass(frozen=True)
class ChunkIndex:
    """Offset and size of each chunk in the file."""

    offset: NDArray[np.int64]
    size: NDArray[np.int64]


class ChunkedArray:
    """A chunked array of one or two dimensions; chunks form bands of rows, cut into tiles."""

    def __init__(self, plain: PlainArray, file: Descriptor) -> None:
        self.where, self.shape, self.dtype = plain.where, plain.shape, plain.dtype
        self._plain, self._file = plain, file
        dataset: h5py.Dataset = plain.node
        self._rows = int(dataset.chunks[0])
        self._width = int(self.shape[1]) if len(self.shape) == 2 else 1
        self._tile = int(dataset.chunks[1]) if len(self.shape) == 2 else 1
        self._tiles = -(-self._width // self._tile)
        self._bands = -(-self.shape[0] // self._rows)
        plist = dataset.id.get_create_plist()
        self._filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        self._bytes = self._rows * self._tile * self.dtype.itemsize
        self._table: ChunkIndex
        self._known = False  # whether the chunks have been listed
        self._read_bands = 0  # counted until all chunks are listed
        self._slow = False
        self._tail: dict[int, NDArray[Any]] = {}

    def tasks(self, starts: Ranges, stops: Ranges, out: NDArray[Any]) -> list[Task]:
        """Decode each band once, for all ranges in it."""
        if not len(starts):
            return []
        pieces = _pieces(starts, stops, self._rows)
        if self._slow or self._seldom(pieces[0]) or not self._located():
            return self._plain.tasks(starts, stops, out)
        band = pieces[0]
        edges = [0, *(np.flatnonzero(np.diff(band)) + 1).tolist(), len(band)]
        keep_last = int(stops[-1]) % self._rows != 0
        tail, self._tail = self._tail, {}
        per_task = max(1, TASK_BYTES // (self._bytes * self._tiles))
        groups = range(0, len(edges) - 1, per_task)
        last = int(band[-1]) if keep_last else -1
        return [self._task(pieces, edges[g : g + per_task + 1], out, tail, last) for g in groups]

    def _task(
        self,
        pieces: tuple[NDArray[np.int64], ...],
        edges: list[int],
        out: NDArray[Any],
        tail: dict[int, NDArray[Any]],
        keep: int,
    ) -> Task:
        flat = out.reshape(len(out), self._width)

        def run() -> None:
            for a, b in itertools.pairwise(edges):
                self._band(int(pieces[0][a]), [part[a:b] for part in pieces[1:]], flat, tail, keep)

        return run

    def _band(
        self,
        band: int,
        parts: list[NDArray[np.int64]],
        out: NDArray[Any],
        tail: dict[int, NDArray[Any]],
        keep: int,
    ) -> None:
        """Decode the tiles of a band, and copy its rows to the output."""
        lows, highs, places = (part.tolist() for part in parts)
        for tile in range(self._tiles):
            left = tile * self._tile
            width = min(self._tile, self._width - left)
            chunk = band * self._tiles + tile
            held = tail.get(chunk)
            whole = highs[0] - lows[0] == self._rows and width == self._width == self._tile
            if held is None and whole and out.dtype == self.dtype:
                # The whole chunk is needed unchanged: decode into the output.
                self._decode(chunk, out[places[0] : places[0] + self._rows].reshape(-1))
                continue
            if held is None:
                held = self._decoded(chunk, fresh=band == keep)
            if band == keep:
                self._tail[chunk] = held
            for low, high, place in zip(lows, highs, places, strict=True):
                out[place : place + high - low, left : left + width] = held[low:high, :width]

    def _decoded(self, chunk: int, *, fresh: bool) -> NDArray[Any]:
        """Decode a chunk into this thread's scratch memory, or into a new array."""
        n = self._rows * self._tile
        values = np.empty(n, self.dtype) if fresh else _scratch.take("out", n, self.dtype)
        self._decode(chunk, values)
        return values.reshape(self._rows, self._tile)

    def _decode(self, chunk: int, out: NDArray[Any]) -> None:
        offset, size = int(self._table.offset[chunk]), int(self._table.size[chunk])
        with reading(f"{self.where}, chunk {chunk:,} at byte {offset:,},"):
            target = out.view(np.uint8)
            if not self._filters:
                self._file.read_into(target, offset)
                return
            stored: Any = self._file.read(size, offset)
            for i, code in enumerate(reversed(self._filters)):
                last = i == len(self._filters) - 1
                into = target if last else _scratch.take(f"step{i}", self._bytes, np.uint8)
                if code == decode.SHUFFLE:
                    decode.unshuffle(np.frombuffer(stored, np.uint8), into, self.dtype.itemsize)
                else:
                    decoder = decode.decoder(code)
                    assert decoder is not None
                    decoder(stored, into)
                stored = into

    def _seldom(self, bands: NDArray[np.int64]) -> bool:
        """Return whether listing all chunks would take longer than the reads so far."""
        if self._known or self._bands <= LONG_LIST:
            return False
        self._read_bands += len(np.unique(bands))
        return self._read_bands < FEW_CHUNKS * self._bands

    def _located(self) -> bool:
        """List the chunks once; return False, with a message, if HDF5 must read them."""
        if self._known:
            return True
        with reading(self.where):
            table, reason = _locate(self._plain.node, self._bands * self._tiles, self._grid)
        if table is None:
            self._slow = True
            _say_slow(self.where, reason, self)
            return False
        if len(table.offset) and int((table.offset + table.size).max()) > self._file.size:
            raise damaged(self.where, "has chunks beyond the end of the file")
        if not self._filters and (table.size < self._bytes).any():
            raise damaged(self.where, "has chunks shorter than they should be")
        if decode.DEFLATE in self._filters:
            _say_zlib(int(table.size.sum()))
        self._table, self._known = table, True
        return True

    def _grid(self, at: tuple[int, ...]) -> int:
        """Return the number of the chunk that begins at an element."""
        tile = at[1] // self._tile if len(at) == 2 else 0
        return int(at[0] // self._rows * self._tiles + tile)


def _locate(dataset: h5py.Dataset, n: int, number: Any) -> tuple[ChunkIndex | None, str]:
    """Ask HDF5 for the positions of the chunks, or return why they cannot be read without it."""
    offset, size = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    skipped = 0

    def note(info: Any) -> None:
        nonlocal skipped
        chunk = number(info.chunk_offset)
        if chunk < n and info.byte_offset is not None:  # others: of a shrunken data set
            offset[chunk], size[chunk] = info.byte_offset, info.size
            skipped += info.filter_mask != 0

    dataset.id.chunk_iter(note)
    if skipped:
        return None, f"{skipped:,} of its chunks skip a filter"
    missing = int((offset < 0).sum())
    if missing:
        return None, f"{missing:,} of its chunks were never written"
    return ChunkIndex(offset, size), ""


def _pieces(starts: Ranges, stops: Ranges, size: int) -> tuple[NDArray[np.int64], ...]:
    """Cut ranges at the edges of bands: band, first and last row in it, position in the output."""
    first = starts // size
    n = (stops - 1) // size - first + 1
    which = np.repeat(np.arange(len(starts)), n)
    before = np.cumsum(n) - n
    band = first[which] + np.arange(len(which)) - before[which]
    low = np.maximum(starts[which], band * size)
    high = np.minimum(stops[which], (band + 1) * size)
    lengths = stops - starts
    place = (np.cumsum(lengths) - lengths)[which] + low - starts[which]
    return band, low - band * size, high - band * size, place
