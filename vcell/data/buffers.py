"""Arrays that are reused once nothing refers to them: large new arrays cost page faults."""

from __future__ import annotations

import mmap
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Arrays of this many bytes or more are mapped rather than allocated.
MAPPED_FROM = 1 << 20
#: Huge pages have 2 MiB; they would add much to smaller arrays.
_HUGE_FROM = 4 << 20
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Buffers:
    """Recycles arrays; safe to use from several threads.

    An array belongs to the caller for as long as a reference to it, or to a view, exists.

    Parameters
    ----------
    keep
        Maximum number of arrays kept; None for no limit.
    huge
        Ask for huge pages, for large arrays that are written all over.
    """

    def __init__(self, keep: int | None = 8, *, huge: bool = False) -> None:
        self._keep, self._huge = keep, huge
        self._held: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()  # two threads must not get the same array

    def take(self, n: int, dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """Return `n` elements, not initialised."""
        dtype = np.dtype(dtype)
        size = n * dtype.itemsize
        with self._lock:
            return self._held[self._place(size)][:size].view(dtype)

    def _place(self, size: int) -> int:
        """Return the index of the smallest unused array that is large enough.

        If there is none, a larger array replaces the smallest unused one.
        """
        # Unused arrays have two references: the list's, and getrefcount's argument. A view adds
        # one.
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
            del self._held[0]  # its user keeps it
        self._held.append(fresh)
        return len(self._held) - 1

    def _size(self, i: int) -> int:
        return len(self._held[i])

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Return new bytes."""
        return pages(size, huge=self._huge)

    def is_read(self, i: int) -> bool:
        """Whether no device will read an unreferenced array any more."""
        del i
        return True


class Scratch(threading.local):
    """Arrays that each thread reuses by name, of `least` bytes or more; one caller at a time."""

    def __init__(self, least: int = 0) -> None:
        self._least = least
        self._held: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, n: int, dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """Return `n` elements, not initialised."""
        dtype = np.dtype(dtype)
        size = n * dtype.itemsize
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = np.empty(max(size, self._least), np.uint8)
        return held[:size].view(dtype)


def pages(size: int, *, huge: bool = False) -> NDArray[np.uint8]:
    """Return new bytes; large arrays are mapped, and returned to the system when freed.

    The C library would keep freed arrays of this size, or pieces of them. Shared memory, the
    default of `mmap`, takes twice as long to get. Huge pages are a wish: systems may lack them.
    """
    if size < MAPPED_FROM:
        return np.empty(size, np.uint8)
    mapped = mmap.mmap(-1, size, flags=_PRIVATE)
    if huge and size >= _HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapped, np.uint8)
