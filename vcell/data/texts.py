"""Many short strings in a compact form: the names of all cells, or a column of text.

A Python string takes fifty bytes in addition to its characters, and several copies exist while a
list of them is read. Here the characters of all strings are in one buffer, with eight bytes per
string for the position of its end. Python strings are made on demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Number of Python strings at a time.
PIECE = 1 << 15
#: Number of letters that are hashed at a time, unless a string is longer.
LETTERS = 1 << 18
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no letter's weight vanishes


class Texts:
    """An array of strings, indexed as in numpy: a number gives a str, anything else an array.

    Parameters
    ----------
    pieces
        The strings, piece by piece, as str or as UTF-8 bytes (invalid ones become U+FFFD).
    """

    def __init__(self, pieces: Iterable[NDArray[Any]]) -> None:
        letters, lengths = bytearray(), []
        for piece in pieces:
            coded, joined = _utf8(piece.tolist())
            letters += joined
            lengths.append(np.fromiter(map(len, coded), np.int32, len(coded)))
        self._letters = memoryview(letters)
        self._ends = np.zeros(sum(map(len, lengths)) + 1, np.int64)
        if lengths:
            np.cumsum(np.concatenate(lengths), out=self._ends[1:])

    @classmethod
    def of(cls, values: NDArray[Any]) -> Texts:
        """Make it from an array of strings."""
        return cls(values[a : a + PIECE] for a in range(0, len(values), PIECE))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, at: slice | NDArray[Any]) -> NDArray[np.object_]: ...
    def __getitem__(self, at: Any) -> Any:
        starts, stops = self._ends[:-1][at], self._ends[1:][at]
        if np.ndim(starts) == 0:
            return str(self._letters[int(starts) : int(stops)], "utf-8")
        out = np.empty(len(starts), object)
        where = zip(starts.tolist(), stops.tolist(), strict=True)
        out[:] = [str(self._letters[start:stop], "utf-8") for start, stop in where]
        return out

    def pieces(self, rows: NDArray[np.integer[Any]] | None = None) -> Iterator[NDArray[np.object_]]:
        """Yield all strings, or those of some rows, a few at a time."""
        for a in range(0, len(self) if rows is None else len(rows), PIECE):
            yield self[a : a + PIECE] if rows is None else self[rows[a : a + PIECE]]

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces():
            yield from piece.tolist()

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        """Make Python strings, or an array of fixed width, of all."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def tolist(self) -> list[str]:
        """Return all as a list."""
        strings: list[str] = self[:].tolist()
        return strings

    def hashes(self) -> NDArray[np.uint64]:
        """Return a hash of each string, a polynomial of its letters; no strings are made."""
        letters, lengths = np.asarray(self._letters, np.uint8), np.diff(self._ends)
        powers = np.cumprod(np.full(int(lengths.max(initial=0)), _BASE), dtype=np.uint64)
        found = np.zeros(len(self), np.uint64)
        rows = np.flatnonzero(lengths)
        ends = self._ends[rows + 1]
        at = 0
        while at < len(rows):
            begin = int(self._ends[rows[at]])
            to = max(int(np.searchsorted(ends, begin + LETTERS, side="right")), at + 1)
            some = rows[at:to]
            starts = self._ends[some] - begin
            place = np.arange(int(ends[to - 1]) - begin) - np.repeat(starts, lengths[some])
            terms = (letters[begin : int(ends[to - 1])] + np.uint64(1)) * powers[place]
            found[some] = np.add.reduceat(terms, starts)
            at = to
        return found

    def n_blank(self) -> int:
        """Return the number of strings without any visible letter."""
        lengths = np.diff(self._ends)
        first = np.full(len(self), ord(" "), np.uint8)
        filled = np.flatnonzero(lengths)
        first[filled] = np.asarray(self._letters, np.uint8)[self._ends[filled]]
        # ASCII's white space is not above the blank; other white space begins beyond ASCII
        unclear = np.flatnonzero((first <= ord(" ")) | (first >= 0x80))
        return sum(not text.strip() for piece in self.pieces(unclear) for text in piece)

    def n_different(self) -> int:
        """Return the number of distinct strings, approximately."""
        return len(np.unique(self.hashes()))

    def factorise(self) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
        """Return each string's number among the distinct ones, and those, sorted."""
        number = _Numbers()
        codes = np.empty(len(self), np.int32)
        at = 0
        for piece in self.pieces():
            codes[at : at + len(piece)] = number.of(piece)
            at += len(piece)
        return number.renumbered(codes)


class _Numbers(dict[Any, int]):
    """Values and their numbers, in order of first occurrence."""

    def __missing__(self, value: Any) -> int:
        self[value] = len(self)
        return len(self) - 1

    def of(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Return the values' numbers."""
        return np.fromiter(map(self.__getitem__, values.tolist()), np.int32, len(values))

    def renumbered(
        self, codes: NDArray[np.int32], *, ordered: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
        """Give missing values -1, and the others their rank (numbers before text)."""
        present = [value for value in self if not is_missing(value)]
        if ordered:
            try:
                present.sort()
            except TypeError:
                present.sort(key=lambda value: (isinstance(value, str), value))
        rank = np.full(len(self) + 1, -1, np.int32)
        rank[[self[value] for value in present]] = np.arange(len(present), dtype=np.int32)
        categories = np.empty(len(present), object)
        categories[:] = present
        return rank[codes], categories


def factorise(
    values: NDArray[Any], *, ordered: bool = True
) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Return each value's number among the distinct ones (-1: missing), and those, sorted.

    Equal to pandas' ``factorize``; pandas takes a third of a second to import.
    """
    number = _Numbers()
    return number.renumbered(number.of(values), ordered=ordered)


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, NaT or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)  # noqa: PLR0124


def join(parts: Iterable[Texts]) -> Texts:
    """Concatenate several arrays of strings."""
    return Texts(piece for part in parts for piece in part.pieces())


def _utf8(values: list[Any]) -> tuple[list[bytes] | list[str], bytes]:
    """Return the strings as UTF-8, one by one (str if as long as that) and joined."""
    kinds = set(map(type, values))
    if kinds <= {bytes}:  # numpy's strings are buffers too, but not of UTF-8
        joined = b"".join(values)
        if joined.isascii():
            return values, joined
    elif kinds == {str}:
        text = "".join(values)
        if text.isascii():
            return values, text.encode()
    coded = [
        str(value, "utf-8", "replace").encode()
        if isinstance(value, bytes)
        else str(value).encode("utf-8", "replace")
        for value in values
    ]
    return coded, b"".join(coded)
