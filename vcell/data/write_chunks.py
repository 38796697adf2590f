"""Growing HDF5 arrays whose chunks are compressed on threads, outside the HDF5 library's lock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib

from vcell.data import decode_pool

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

LEVEL = 3  # of isal: about the size of zlib's level 4, three to five times as fast


class ChunkWriter:
    """Appends to a one-dimensional gzip data set, whole chunks at a time."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._size = int(dataset.chunks[0])
        self._written = 0  # values
        self._rest = np.empty(0, dataset.dtype)  # less than a chunk

    def cut(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Add values, and return the chunks that they complete."""
        values = np.concatenate([self._rest, values.astype(self._rest.dtype, copy=False)])
        n = len(values) // self._size * self._size
        self._rest = values[n:].copy()
        return [values[at : at + self._size] for at in range(0, n, self._size)]

    def put(self, stored: bytes) -> None:
        """Write the next chunk, compressed."""
        at, self._written = self._written, self._written + self._size
        self._dataset.resize((self._written,))
        self._dataset.id.write_direct_chunk((at,), stored)

    def close(self) -> None:
        """Write the rest; HDF5 stores the last chunk at full size as well."""
        n = len(self._rest)
        if n:
            last = np.zeros(self._size, self._rest.dtype)
            last[:n] = self._rest
            length = self._written + n
            self.put(compressed(last))
            self._dataset.resize((length,))


def append(writers: Sequence[ChunkWriter], arrays: Sequence[NDArray[Any]]) -> None:
    """Append to several arrays at once, so that all threads have chunks to compress."""
    full = [(w, chunk) for w, a in zip(writers, arrays, strict=True) for chunk in w.cut(a)]
    stored = [b""] * len(full)

    def compress(i: int) -> None:
        stored[i] = compressed(full[i][1])

    decode_pool.finish(decode_pool.start([partial(compress, i) for i in range(len(full))]))
    for (writer, _), chunk in zip(full, stored, strict=True):
        writer.put(chunk)


def compressed(values: NDArray[Any]) -> bytes:
    """Compress for HDF5's gzip filter."""
    packed: bytes = isal_zlib.compress(values.tobytes(), LEVEL)
    return packed
