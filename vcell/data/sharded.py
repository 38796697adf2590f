"""Sharded zarr v3 arrays read without zarr, whose overhead is several times the cost of decoding.

The chunks are read by offset and decoded on vcell's threads, as for HDF5. zarr reads the
exceptions: other codecs, missing chunks, more than one dimension, very many shards.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vcell.data import decode
from vcell.data.arrays import Array, PlainArray
from vcell.data.chunked import ChunkedArray
from vcell.data.fault import reading
from vcell.data.shard_file import NOT_WRITTEN, ShardFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vcell.data.nodes import Node

#: Maximum number of open shards.
OPEN = 256
_DECODERS = {"BloscCodec": decode.BLOSC, "ZstdCodec": decode.ZSTD}


class Shards:
    """The shard files of one store, open until it is closed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: list[ShardFile] = []

    def array_of(self, node: Node, where: str) -> Array:
        """Return the fastest reader of an array."""
        plain = PlainArray(node, where)
        coding = _readable(node)
        if coding is None:
            return plain
        folder, n_chunks = self._root / node.path / "c", node.shards[0] // node.chunks[0]

        def open_shard(number: int) -> ShardFile | None:
            try:
                path = folder / str(number)
                self._open.append(ShardFile(path, n_chunks, checked=coding.checked))
            except FileNotFoundError:
                return None
            return self._open[-1]

        return ShardedArray(plain, open_shard, coding.decoder)

    def close(self) -> None:
        """Close the files."""
        for file in self._open:
            file.close()


class Coding(NamedTuple):
    """Encoding of an array's chunks."""

    decoder: int  # its number in `vcell.data.decode`
    checked: bool  # whether each ends in a checksum


def _readable(node: Node) -> Coding | None:
    """Return the encoding of an array's chunks; None if zarr must read it."""
    metadata = node.metadata
    codecs: Any = getattr(metadata, "codecs", ())
    if getattr(metadata, "zarr_format", 2) != 3 or len(node.shape) != 1 or len(codecs) != 1:
        return None
    names = [type(codec).__name__ for codec in getattr(codecs[0], "codecs", ())]
    if type(codecs[0]).__name__ != "ShardingCodec" or names[:1] != ["BytesCodec"]:
        return None
    separator = getattr(metadata.chunk_key_encoding, "separator", "")
    index = [type(codec).__name__ for codec in codecs[0].index_codecs]
    usual = (
        names[1:2] != []
        and names[1] in _DECODERS
        and names[2:] in ([], ["Crc32cCodec"])
        and index == ["BytesCodec", "Crc32cCodec"]
        and codecs[0].index_location.value == "end"
        and separator == "/"
        and node.dtype.kind in "iuf"
        and node.dtype.byteorder != ">"
        and all(getattr(c.endian, "value", "little") == "little" for c in codecs[0].codecs[:1])
        and -(-node.shape[0] // node.shards[0]) <= OPEN
    )
    return Coding(_DECODERS[names[1]], len(names) == 3) if usual else None


class ShardedArray(ChunkedArray):
    """A sharded array of one dimension."""

    def __init__(
        self, plain: PlainArray, shard: Callable[[int], ShardFile | None], code: int
    ) -> None:
        self.where, self.shape, self.dtype = plain.where, plain.shape, plain.dtype
        self._plain, self._shard, self._code = plain, shard, code
        self._rows = int(plain.node.chunks[0])
        self._per_shard = int(plain.node.shards[0]) // self._rows
        self._width = self._tile = self._tiles = 1
        self._bands = -(-self.shape[0] // self._rows)
        self._bytes = self._rows * self.dtype.itemsize
        self._known = self._slow = False
        self._tail: dict[int, NDArray[Any]] = {}
        self._files: list[ShardFile] = []

    def _located(self) -> bool:
        """Read the index of every shard; return False if chunks are missing: zarr fills them."""
        if self._known:
            return True
        for number in range(-(-self._bands // self._per_shard)):
            with reading(f"{self.where}, shard {number}"):
                file = self._shard(number)
            if file is None:
                self._slow = True
                return False
            self._files.append(file)
            if (file.index[: self._bands - number * self._per_shard] == NOT_WRITTEN).any():
                self._slow = True
                return False
        self._known = True
        return True

    def _decode(self, chunk: int, out: NDArray[Any]) -> None:
        shard, within = divmod(chunk, self._per_shard)
        decoder = decode.decoder(self._code)
        assert decoder is not None
        with reading(f"{self.where}, chunk {chunk:,}"):
            decoder(self._files[shard].read(within), out.view(np.uint8))
