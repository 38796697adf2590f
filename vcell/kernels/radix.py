"""Radix sort of long runs of 32-bit keys; docs/decisions.md has the reasons."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]

_BITS = 11  # bits of a digit: 2,048 counters fit the L1 cache
#: Runs of fewer keys are sorted faster by numpy, and on some processors all runs.
_LEAST = 1_000


@cache
def least() -> int:
    """Return the length from which runs are sorted faster by digits than by numpy.

    numpy's sort for AVX-512 takes 12 ns per key on some processors, where digits take 5, and 1.7 on
    others, where digits take 3. So both sort a few keys here, which takes .2 ms.
    """
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 4 * _LEAST).astype(np.uint32)
    first, last, spare = np.array([0]), np.array([len(drawn)]), np.empty_like(drawn)

    def cost(sort: Callable[[Array], Any]) -> float:
        spent = []
        for _ in range(4):  # the first loads the code
            keys = drawn.copy()
            began = thread_time()
            sort(keys)
            spent.append(thread_time() - began)
        return min(spent)

    digits = cost(lambda keys: sort_runs(keys, first, last, 6, 2, spare))
    return _LEAST if digits < cost(lambda keys: keys.sort()) else 1 << 62


@njit(nogil=True, cache=True)
def sort_runs(
    keys: Array, first: Array, last: Array, shift: int, least: int, spare: Array
) -> None:  # fmt: skip
    """Sort each run ``keys[first[k] : last[k]]`` of `least` keys or more by the bits above `shift`.

    Keys are uint32. The order of keys with equal high bits is kept. ``spare`` has room for the
    longest run.
    """
    count = np.zeros(1 << _BITS, np.int64)
    move = np.uint64(shift)
    for k in range(len(first)):
        a, n = first[k], last[k] - first[k]
        if n < least:
            continue
        own, other = keys[a : a + n], spare[:n]
        low = high = own[0]
        for j in range(n):
            low = min(low, own[j])
            high = max(high, own[j])
        base, bits = np.uint64(low) >> move, 0
        while ((np.uint64(high) >> move) - base) >> np.uint64(bits):
            bits += 1
        passes = (bits + _BITS - 1) // _BITS
        width = (bits + passes - 1) // max(passes, 1)
        mask = np.uint64((1 << width) - 1)
        for p in range(passes):
            drop = np.uint64(p * width)
            for i in range(1 << width):
                count[i] = 0
            for j in range(n):
                count[(((np.uint64(own[j]) >> move) - base) >> drop) & mask] += 1
            at = 0
            for i in range(1 << width):
                c = count[i]
                count[i] = at
                at += c
            for j in range(n):
                x = own[j]
                digit = (((np.uint64(x) >> move) - base) >> drop) & mask
                other[count[digit]] = x
                count[digit] += 1
            own, other = other, own
        if passes & 1:
            for j in range(n):
                other[j] = own[j]
