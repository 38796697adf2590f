"""One-dimensional zarr v3 arrays in shards: written as a stream, read chunk by chunk.

Every chunk of a shard (`vcell.data.shard_file`) ends in a checksum. zarr-python, zarrs and anndata
read the same files. vcell has its own reader, to decode on plain threads into reused buffers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numcodecs import blosc

from vcell.data.buffers import Scratch
from vcell.data.shard_file import NOT_WRITTEN, ShardDamagedError, ShardFile, with_crc
from vcell.errors import UserError
from vcell.kernels import frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

Codec = Literal["lz4", "zstd", "none"]
# We use our own threads; blosc's write a chunk's blocks in the order in which they finish.
blosc.use_threads = False
#: Elements of a chunk: 128 KiB of u16, so that ids and values of one chunk stay in the L2 cache.
CHUNK = 1 << 16
#: Chunks of a shard: 64 M elements, 40 to 80 MB of lz4-compressed counts on disk.
CHUNKS_PER_SHARD = 1 << 10
_LEVEL = {"lz4": 3, "zstd": 3}
#: Bytes that are compressed at a time (0: blosc chooses).
_BLOCK = {"lz4": 1 << 15, "zstd": 0}


@dataclass(frozen=True)
class ShardLayout:
    """Chunks, shards and compression of an array."""

    dtype: np.dtype[Any]
    size: int
    codec: Codec = "lz4"
    chunk: int = CHUNK
    chunks_per_shard: int = CHUNKS_PER_SHARD
    counts: bool = False  # small whole numbers, mostly

    @property
    def shard(self) -> int:
        """Elements of a shard."""
        return self.chunk * self.chunks_per_shard

    @property
    def n_shards(self) -> int:
        """Number of shard files."""
        return -(-self.size // self.shard)


def _shuffled_by_bit(codec: Codec, *, counts: bool) -> bool:
    """Whether to shuffle bits: for lz4 and small counts, whose high bits are all zero."""
    return counts and codec == "lz4"


_scratch = Scratch()


def _work() -> NDArray[np.uint8]:
    return _scratch.take("work", frames.WORK, np.uint8)


def is_framed(codec: Codec, dtype: np.dtype[Any]) -> bool:
    """Whether `vcell.kernels.frames` reads and writes chunks of such an array."""
    return codec == "lz4" and dtype.kind in "iu" and dtype.itemsize <= 2


def encode(values: NDArray[Any], codec: Codec, *, counts: bool = False) -> bytes:
    """Compress a full chunk and append its checksum."""
    whole = values.nbytes % frames.BLOCK == 0
    if whole and is_framed(codec, values.dtype) and (counts or values.itemsize > 1):
        out = _scratch.take("frame", frames.room(values.nbytes), np.uint8)
        n = frames.encode(values.view(f"u{values.itemsize}"), counts, out, _work())
        return with_crc(out[:n])
    if codec == "none":
        body = values.tobytes()
    else:
        by_bit = _shuffled_by_bit(codec, counts=counts)
        shuffle = blosc.BITSHUFFLE if by_bit else blosc.SHUFFLE
        body = blosc.compress(values, codec.encode(), _LEVEL[codec], shuffle, _BLOCK[codec])
    return with_crc(body)


class ShardWriter:
    """Writes one shard, chunk by chunk, under a temporary name; renames it when complete."""

    def __init__(self, path: Path, chunks_per_shard: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = path.with_name(f"{path.name}.partial")  # a later attempt overwrites it
        self._file = self._aside.open("wb")
        self._index = np.full((chunks_per_shard, 2), NOT_WRITTEN, "<u8")
        self._n = 0
        self._offset = 0

    def append(self, coded: bytes) -> None:
        """Add the next chunk."""
        self._file.write(coded)
        self._index[self._n] = self._offset, len(coded)
        self._n += 1
        self._offset += len(coded)

    def close(self) -> int:
        """Write the index, rename into place, and return the size of the file in bytes."""
        index = with_crc(self._index.tobytes())
        self._file.write(index)
        self._file.close()
        self._aside.replace(self.path)
        return self._offset + len(index)

    def abandon(self) -> None:
        """Remove what was written so far."""
        self._file.close()
        self._aside.unlink(missing_ok=True)


def write_array(folder: Path, values: NDArray[Any], codec: Codec = "lz4") -> None:
    """Write an array that is in memory."""
    n_chunks = max(-(-len(values) // CHUNK), 1)
    layout = ShardLayout(values.dtype, len(values), codec, CHUNK, min(n_chunks, CHUNKS_PER_SHARD))
    write_metadata(folder, layout)
    for shard in range(layout.n_shards):
        writer = ShardWriter(folder / "c" / str(shard), layout.chunks_per_shard)
        for a in range(shard * layout.shard, min((shard + 1) * layout.shard, len(values)), CHUNK):
            writer.append(encode(full_chunk(values[a : a + CHUNK]), codec))
        writer.close()


def full_chunk(values: NDArray[Any]) -> NDArray[Any]:
    """Pad the last chunk of an array: zarr stores whole chunks only."""
    if len(values) == CHUNK:
        return values
    return np.concatenate([values, np.zeros(CHUNK - len(values), values.dtype)])


def write_metadata(folder: Path, layout: ShardLayout) -> None:
    """Write the zarr.json of an array whose shards are, or will be, under ``c/``."""
    inner: list[dict[str, Any]] = [{"name": "bytes"}]
    if layout.dtype.itemsize > 1:
        inner[0]["configuration"] = {"endian": "little"}
    if layout.codec != "none":
        by_bit = _shuffled_by_bit(layout.codec, counts=layout.counts)
        inner.append(
            {
                "name": "blosc",
                "configuration": {
                    "typesize": layout.dtype.itemsize,
                    "cname": layout.codec,
                    "clevel": _LEVEL[layout.codec],
                    "shuffle": "bitshuffle" if by_bit else "shuffle",
                    "blocksize": _BLOCK[layout.codec],
                },
            }
        )
    inner.append({"name": "crc32c"})
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [layout.chunk],
        "codecs": inner,
        "index_codecs": index,
        "index_location": "end",
    }
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [layout.size],
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layout.shard]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {"encoding-type": "array", "encoding-version": "0.2.0"},
        "storage_transformers": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(metadata, indent=2))


class ShardReader:
    """Reads an array written by `ShardWriter`; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = _read_layout(folder)
        self._shards: dict[int, ShardFile] = {}
        self._lock = threading.Lock()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.layout.dtype

    def read_chunk(self, number: int, out: NDArray[Any]) -> None:
        """Decode chunk `number` into `out`, which holds `layout.chunk` elements."""
        shard, within = divmod(number, self.layout.chunks_per_shard)
        with self._shard(shard) as file:
            body = file.read(within)
        if self.layout.codec == "none":
            out.view(np.uint8)[:] = np.frombuffer(body, np.uint8)
        elif not self._decoded(body, out):
            blosc.decompress(body, out)

    def _decoded(self, body: memoryview, out: NDArray[Any]) -> bool:
        """Decode a chunk by our own kernel, if it can."""
        if not is_framed(self.layout.codec, self.dtype):
            return False
        plain = out.view(f"u{out.itemsize}")
        return bool(frames.decode(np.frombuffer(body, np.uint8), plain, _work()))

    def read_frames(self, numbers: list[int], out: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Read encoded chunks, one after another; return their bounds in `out`."""
        bounds, i = [0], 0
        while i < len(numbers):
            shard, within = divmod(numbers[i], self.layout.chunks_per_shard)
            n = 1  # neighbours in the shard are read together
            while i + n < len(numbers) and numbers[i + n] == numbers[i] + n:
                n += 1
            n = min(n, self.layout.chunks_per_shard - within)
            with self._shard(shard) as file:
                bounds += file.read_into(out, bounds[-1], within, n)
            i += n
        return np.array(bounds, np.int64)

    def read_all(self) -> NDArray[Any]:
        """Return the whole array."""
        size, chunk = self.layout.size, self.layout.chunk
        whole = np.empty(-(-size // chunk) * chunk, self.dtype)
        for number in range(len(whole) // chunk):
            self.read_chunk(number, whole[number * chunk : (number + 1) * chunk])
        return whole[:size]

    def verify_shard(self, shard: int) -> None:
        """Check every checksum of a shard without decoding it."""
        with self._shard(shard) as file:
            file.verify()

    def close(self) -> None:
        """Close the shard files."""
        with self._lock:
            for file in self._shards.values():
                file.close()
            self._shards.clear()

    @contextmanager
    def _shard(self, number: int) -> Iterator[ShardFile]:
        """Open a shard once; errors name its path."""
        try:
            file = self._shards.get(number)
            if file is None:
                file = self._opened(number)
            yield file
        except (OSError, ShardDamagedError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"{self._path(number)} is damaged: {why}",
                hint="build the store again: `vcell prepare ... --overwrite`",
            ) from None

    def _opened(self, number: int) -> ShardFile:
        with self._lock:
            if number not in self._shards:
                n_chunks = self.layout.chunks_per_shard
                self._shards[number] = ShardFile(self._path(number), n_chunks, checked=True)
            return self._shards[number]

    def _path(self, shard: int) -> Path:
        return self.folder / "c" / str(shard)


def _read_layout(folder: Path) -> ShardLayout:
    try:
        metadata = json.loads((folder / "zarr.json").read_text())
        sharding = metadata["codecs"][0]["configuration"]
        names = [codec["name"] for codec in sharding["codecs"]]
        if sharding["index_location"] != "end" or names[-1] != "crc32c":
            raise KeyError("index_location")
        coder = {c["name"]: c.get("configuration", {}) for c in sharding["codecs"]}
        chunk = sharding["chunk_shape"][0]
        return ShardLayout(
            dtype=np.dtype(metadata["data_type"]),
            size=metadata["shape"][0],
            codec=coder["blosc"]["cname"] if "blosc" in coder else "none",
            chunk=chunk,
            chunks_per_shard=metadata["chunk_grid"]["configuration"]["chunk_shape"][0] // chunk,
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{folder} is not an array of a vcell store ({type(error).__name__}: {error})",
            hint="make a store with `vcell prepare FILE -o STORE`",
        ) from None
