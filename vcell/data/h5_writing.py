"""An HDF5 file that survives a full disk while it is written.

The HDF5 library crashes with a segmentation fault if it cannot write its buffers while closing a
file. So it writes through `HdfSink`, which stores the first error and discards all later data.
`HdfSink.check` raises that error; the file is then deleted.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell.outputs import MADE_BY, made_by

if TYPE_CHECKING:
    import numpy as np


class HdfSink(io.RawIOBase):
    """A file for h5py's driver for Python files; writing to it never fails."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = self._size = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the first error since the file was opened."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read; unwritten parts are zeros."""
        into = memoryview(buffer).cast("B")
        found = b""
        with self._noting():
            found = os.pread(self._fd, len(into), self._at)
        into[: len(found)] = found
        into[len(found) :] = bytes(len(into) - len(found))
        self._at += len(into)
        return len(into)

    def write(self, data: Any) -> int:
        """Write, unless there was an error before."""
        view = memoryview(data).cast("B")
        with self._noting():
            done = 0
            while self._error is None and done < len(view):
                done += os.pwrite(self._fd, view[done:], self._at + done)
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        self._size = self._at if size is None else size
        if self._error is None:
            with self._noting():
                os.ftruncate(self._fd, self._size)
        return self._size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            super().close()
            os.close(self._fd)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Store an error, or an interrupt, so that the HDF5 library does not see it."""
        try:
            yield
        except OSError as error:
            error.filename = self._path
            self._error = self._error or error
        except BaseException as error:  # noqa: BLE001 - raised by check
            self._error = self._error or error


@contextmanager
def writing(path: Path, **options: Any) -> Iterator[tuple[Any, HdfSink]]:
    """Open a new HDF5 file, marked as made by vcell; errors are raised at the end.

    Parameters
    ----------
    path
        Temporary path to write to.
    options
        Arguments of `h5py.File`.
    """
    import h5py

    sink = HdfSink(path)
    try:
        file = h5py.File(sink, "w", **options)
        try:
            file.attrs[MADE_BY] = made_by()
            yield file, sink
        except Exception:
            sink.check()  # the first error explains later ones
            raise
        finally:
            with suppress(OSError, RuntimeError):
                file.close()
        sink.check()
    finally:
        sink.close()


def in_one_piece(
    file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Any, int]:
    """Make an array that is not written; return it, and its place in the file, for `HdfSink`."""
    import h5py

    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind, space = h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape)
    array = h5py.h5d.create(file.id, name.encode(), kind, space, settings)
    place = array.get_offset()  # None if it has no values
    return h5py.Dataset(array), place or 0
