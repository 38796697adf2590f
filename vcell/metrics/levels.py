"""Keys of counts: whole numbers in the order of the counts' logarithms, by count and cell.

With one divisor per cell, log1p of a small count is one of a few values per cell. A 32-bit key
holds such a value, or its rank among all of them, above the bits of the cell's group.

Legend: ``L`` counts, from 0 on; ``C`` cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.log_scale import log_divided

#: Counts below `_SMALL` are looked up, fewer if the tables would exceed `_TABLE` entries.
_SMALL, _TABLE = 64, 1 << 24
_LARGEST = 65535  # count of 16 bits
_ROUNDING = 16  # error of a logarithm, in units of the last bit
#: Key of a cell without a group; no key has all bits.
NONE = 0xFFFFFFFF


@dataclass(frozen=True)
class Levels:
    """Values of the counts below `n`: log1p of the count over the cell's divisor, ``[C]``."""

    divisor: NDArray[np.floating]
    n: int

    @classmethod
    def of(cls, divisor: NDArray[np.floating]) -> Levels:
        """Choose how many counts to tabulate."""
        return cls(divisor, max(min(_SMALL, _TABLE // max(len(divisor), 1)), 2))

    def values(self, cells: Any = slice(None)) -> NDArray[np.floating]:
        """Return the table of some cells, ``[L, C]``."""
        own = self.divisor[cells]
        return log_divided(np.arange(self.n, dtype=own.dtype)[:, None], own)

    def order(self, shift: int) -> KeyOrder | None:
        """Return keys of the values that fit into 32 bits with the group's bits, or None.

        Positive floats are ordered as their bits are. Those of float32 fit unchanged if groups are
        few (64, if the largest value is 250 times the smallest); otherwise their ranks may.
        """
        if self.divisor.dtype == np.float32 and len(self.divisor):
            ends = np.array([self.divisor.max(), self.divisor.min()])
            values = log_divided(np.array([1, _LARGEST], np.float32), ends)
            low, high = values.view(np.uint32).tolist()
            if (high - low + 2 * _ROUNDING).bit_length() + shift <= 32:
                return KeyOrder(self, shift, low - _ROUNDING)
        rank = self._ranks()
        fits = (int(rank.max(initial=1)) + 1).bit_length() + shift <= 32
        return KeyOrder(self, shift, 0, rank) if fits else None

    def _ranks(self) -> NDArray[np.uint32]:
        value = self.values()
        bits = value[1:].reshape(-1).view(np.uint32 if value.dtype == np.float32 else np.uint64)
        order = np.argsort(bits)
        ordered = bits[order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = ordered[1:] != ordered[:-1]
        rank = np.zeros(value.shape, np.uint32)
        rank[1:].reshape(-1)[order] = np.cumsum(fresh, dtype=np.uint32)
        return rank


@dataclass(frozen=True)
class KeyOrder:
    """How values become keys: by their bits less `base`, or by their ranks, ``[L, C]``."""

    levels: Levels
    shift: int  # bits of the group, the lowest of a key
    base: int
    rank: NDArray[np.uint32] | None = None

    @property
    def of_bits(self) -> bool:
        """Whether keys have the bits of the values."""
        return self.rank is None

    def keys(self, cells: NDArray[np.int32], group: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Return the keys of some cells of these groups, ``[L, C]``: `NONE` without a group."""
        if self.rank is None:
            own = self.levels.values(cells).view(np.uint32)
        else:
            own = np.take(self.rank, cells, axis=1)
        own -= np.uint32(self.base)
        own <<= np.uint32(self.shift)
        own[0] = 0  # no count is 0
        own |= group.astype(np.uint32)
        own[:, group < 0] = NONE
        return own
