"""Files read by offset, from several threads: the system keeps no position for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_into(fd: int, out: NDArray[Any], offset: int) -> int:
    """Fill a contiguous array from an open file.

    One call of the system may bring less than it was asked for, and 2 GiB at most.

    Returns
    -------
    int
        The bytes read: fewer than the array has only if the file ends before.
    """
    left = out.reshape(-1).view(np.uint8).data
    while left:
        got = os.preadv(fd, [left], offset)
        if not got:
            break
        left, offset = left[got:], offset + got
    return out.nbytes - len(left)


class Descriptor:
    """A file opened for reading by offset."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Read exactly `size` bytes."""
        stored = os.pread(self.fd, size, offset)
        if len(stored) != size:
            raise OSError(f"the file ends {size - len(stored):,} bytes into what should be there")
        return stored

    def read_into(self, out: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array."""
        lacking = out.nbytes - read_into(self.fd, out, offset)
        if lacking:
            raise OSError(f"the file ends {lacking:,} bytes before what should be there")

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1  # first, as the number may be reused at once
        if fd >= 0:
            os.close(fd)
