"""One shard of a zarr v3 array: a file of separately encoded chunks, followed by their index.

The index has the offset and size of each chunk, u64 little endian, and ends in a crc32c. Chunks may
end in a crc32c of their own, which is checked at each read.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from vcell.data.descriptor import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Bytes of a checksum.
CRC = 4
#: Offset and size of a chunk that was never written.
_NOWHERE = 2**64 - 1
NOT_WRITTEN = np.uint64(_NOWHERE)
#: The crc32c of any message that ends in its own crc32c.
_RESIDUE = 0x48674BC7


class ShardDamagedError(ValueError):
    """A shard does not match its index or its checksums."""


def with_crc(body: bytes | NDArray[np.uint8]) -> bytes:
    """Append a checksum."""
    crc: int = google_crc32c.value(body)
    return b"".join((body, crc.to_bytes(CRC, "little")))  # type: ignore[arg-type]


class ShardFile:
    """A shard open for reading; safe to use from several threads.

    Parameters
    ----------
    n_chunks
        Number of chunks of a full shard: entries of the index.
    checked
        Whether each chunk ends in a checksum.
    """

    def __init__(self, path: Path, n_chunks: int, *, checked: bool) -> None:
        self._file = Descriptor(path)
        self._checked = checked
        try:
            self.index = self._read_index(n_chunks)
        except BaseException:
            self._file.close()
            raise

    def _read_index(self, n_chunks: int) -> NDArray[np.uint64]:
        """Return offset and size of each chunk, ``[C, 2]``."""
        n = 16 * n_chunks + CRC
        tail = self._file.read(n, max(self._file.size - n, 0)) if self._file.size >= n else b""
        if not tail or google_crc32c.value(tail) != _RESIDUE:
            raise ShardDamagedError("its index does not match its checksum")
        return np.frombuffer(tail[:-CRC], "<u8").reshape(-1, 2)

    def places(self, chunk: int, n: int = 1) -> list[tuple[int, int]]:
        """Return offset and size of neighbouring encoded chunks in the file."""
        places: list[tuple[int, int]] = self.index[chunk : chunk + n].tolist()
        for number, (offset, size) in enumerate(places, chunk):
            if offset == _NOWHERE:
                raise ShardDamagedError(f"chunk {number} is missing")
            if offset + size > self._file.size:
                raise ShardDamagedError("the file is shorter than its index says")
        return places

    def read(self, chunk: int) -> memoryview:
        """Return an encoded chunk, without its checksum."""
        [(offset, size)] = self.places(chunk)
        coded = self._file.read(size, offset)
        if not self._checked:
            return memoryview(coded)
        if google_crc32c.value(coded) != _RESIDUE:
            raise ShardDamagedError(f"chunk {chunk} does not match its checksum")
        return memoryview(coded)[:-CRC]

    def read_into(self, out: NDArray[np.uint8], at: int, chunk: int, n: int) -> list[int]:
        """Read n neighbouring chunks to ``out[at:]``; return where each ends there."""
        places = self.places(chunk, n)
        ends = [at + done for done in accumulate(size for _, size in places)]
        if [offset for offset, _ in places[1:]] == [sum(place) for place in places[:-1]]:
            self._file.read_into(out[at : ends[-1]], places[0][0])
        else:
            for (offset, size), end in zip(places, ends, strict=True):
                self._file.read_into(out[end - size : end], offset)
        if self._checked:
            for i, end in enumerate(ends):
                if google_crc32c.value(out[at:end]) != _RESIDUE:
                    raise ShardDamagedError(f"chunk {chunk + i} does not match its checksum")
                at = end
        return ends

    def verify(self) -> None:
        """Check the checksum of every chunk without decoding it."""
        for chunk in np.flatnonzero(self.index[:, 0] != NOT_WRITTEN).tolist():
            self.read(chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
