"""An HDF5 file that survives a full disk while it is written.

The HDF5 library crashes with a segmentation fault if it cannot write its buffers while it closes a
file. So errors are hidden from it: it writes through `HdfSink`, which keeps the first error and
discards all later data. `HdfSink.check` raises that error; the file is then deleted.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vcell.outputs import MADE_BY, made_by


class HdfSink(io.RawIOBase):
    """A file for h5py's driver for Python files; writing to it never fails."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = self._size = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what went wrong since the file was opened."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Say that it reads back what it wrote."""
        return True

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def seekable(self) -> bool:
        """Say that it is written in any order."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read; zeros where nothing was written."""
        into = memoryview(buffer).cast("B")
        found = b""
        with self._noting():
            found = os.pread(self._fd, len(into), self._at)
        into[: len(found)] = found
        into[len(found) :] = bytes(len(into) - len(found))
        self._at += len(into)
        return len(into)

    def write(self, data: Any) -> int:
        """Write, unless something went wrong before."""
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
        """Keep an error, or a signal that came meanwhile, from the HDF5 library."""
        try:
            yield
        except OSError as error:
            error.filename = self._path
            self._error = self._error or error
        except BaseException as error:  # noqa: BLE001 - raised by check
            self._error = self._error or error


@contextmanager
def writing(path: Path, **options: Any) -> Iterator[tuple[Any, HdfSink]]:
    """Open a new HDF5 file, marked as made by vcell; whatever went wrong is raised at the end.

    Parameters
    ----------
    path
        The name to write under.
    options
        For `h5py.File`.
    """
    import h5py

    sink = HdfSink(path)
    try:
        file = h5py.File(sink, "w", **options)
        try:
            file.attrs[MADE_BY] = made_by()
            yield file, sink
        except Exception:
            sink.check()  # the first failure explains those that followed it
            raise
        finally:
            with suppress(OSError, RuntimeError):
                file.close()
        sink.check()
    finally:
        sink.close()


def mark(path: Path) -> None:
    """Note in an HDF5 file that others wrote for us that vcell made it."""
    import h5py

    with h5py.File(path, "a") as file:
        file.attrs[MADE_BY] = made_by()
