"""Arrays that are reused once nothing refers to them: new large arrays cost page faults."""

from __future__ import annotations

import mmap
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes from which an array is mapped rather than allocated.
MAPPED_FROM = 1 << 20
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Buffers:
    """Recycles arrays; safe to use from several threads.

    What is taken belongs to the taker for as long as it, or a view of it, is referred to.

    Parameters
    ----------
    keep
        Most arrays held for later; None for no limit.
    """

    def __init__(self, keep: int | None = 8) -> None:
        self._keep = keep
        self._held: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()  # two threads must not be given the same array

    def take(self, n: int, dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """Return `n` elements holding whatever they last held."""
        dtype = np.dtype(dtype)
        size = n * dtype.itemsize
        with self._lock:
            return self._held[self._place(size)][:size].view(dtype)

    def _place(self, size: int) -> int:
        """Return the place of the smallest array that suffices and that nobody uses.

        Without one, a larger array takes the place of the smallest unused one.
        """
        # A view marks an array as used: an unused one has two references, the list's and
        # getrefcount's argument.
        unused = [i for i in range(len(self._held)) if sys.getrefcount(self._held[i]) == 2]
        unused.sort(key=self._size)
        for i in unused:
            if self._size(i) >= size and self.is_read(i):
                return i
        fresh = self.allocate(size + size // 8)
        for i in unused:
            if self._size(i) < size and self.is_read(i):
                self._held[i] = fresh
                return i
        if self._keep is not None and len(self._held) >= self._keep:
            del self._held[0]  # its user has it for good
        self._held.append(fresh)
        return len(self._held) - 1

    def _size(self, i: int) -> int:
        return len(self._held[i])

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Return fresh bytes."""
        return pages(size)

    def is_read(self, i: int) -> bool:
        """Whether nothing will read an array any more that nobody refers to."""
        del i
        return True


def pages(size: int) -> NDArray[np.uint8]:
    """Return fresh bytes; many of them straight from the system, to which they go back at once.

    The C library would keep freed arrays of this size, and pieces of them, for later. Shared
    memory, the default of `mmap`, takes twice as long to get.
    """
    if size < MAPPED_FROM:
        return np.empty(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=_PRIVATE), np.uint8)
