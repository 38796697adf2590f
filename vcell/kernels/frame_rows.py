"""Rows of sparse matrices, out of encoded chunks and straight into the memory of batches.

Of a frame (`vcell.kernels.frames`) only blocks with wanted rows are decoded, each to bytes in the
nearest cache, and these are written past the cache in the batch's types. Loops use addresses:
numba counts the references to slices, and an atomic count waits until all that was streamed is in
memory.

Serial, without the GIL. The legend is that of `vcell.kernels.gather`.
"""

# ruff: noqa: FBT001, PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.addresses import (
    LINE,
    bytes_of,
    fence,
    fetch_line,
    load8,
    store_as,
    stream_bytes,
    stream_words,
)
from vcell.kernels.frames import BLOCK, WORK, flags_of, halves
from vcell.kernels.kernel import njit

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def _store(low: int, high: int, wide: bool, first: int, last: int, to: int, like: Any) -> None:
    """Store numbers ``first:last`` through the cache: fewer than a line."""
    width = bytes_of(like)
    for i in range(first, last):
        value = load8(low + i)
        if wide:
            value |= load8(high + i) << 8
        store_as(value, to + i * width, like)


@njit(nogil=True, cache=True)
def _stream(low: int, high: int, wide: bool, n: int, to: int, like: Any) -> None:
    """Write n numbers, of the type of `like`, to an address."""
    width = bytes_of(like)
    line = LINE // width
    head = min((-to & (LINE - 1)) // width, n)
    tail = n - (n - head) % line
    _store(low, high, wide, 0, head, to, like)
    if wide:
        for i in range(head, tail, line):
            stream_words(low + i, high + i, to + i * width, like)
    else:
        for i in range(head, tail, line):
            stream_bytes(low + i, high + i, to + i * width, like)
    _store(low, high, wide, tail, n, to, like)


@njit(nogil=True, cache=True)
def _rows_of_frame(
    at: int,
    stop: int,
    size: int,
    begin: int,
    count: int,
    src: Array,
    length: Array,
    dst: Array,
    order: Array,
    first: int,
    last: int,
    work: int,
    out: int,
    like: Any,
) -> bool:
    """Write the parts of rows ``order[first:last]`` in the frame ``at:stop``; False if damaged.

    It holds `count` elements of `size` bytes, number `begin` of the matrix and those after it. They
    are written to addresses from `out` on in the type of the number `like`.
    """
    flags = flags_of(at, stop, size, count)
    if flags == 0:
        return False
    n, width = BLOCK // size, bytes_of(like)
    own = work + WORK // 2
    for b in range(count // n):
        a = begin + b * n
        while first < last and src[order[first]] + length[order[first]] <= a:
            first += 1
        if first == last or src[order[first]] >= a + n:
            continue
        position = first
        while position < last and src[order[position]] < a + n:
            k = order[position]
            fetch_line(out + (dst[k] + max(a - src[k], 0)) * width)
            fetch_line(out + (dst[k] + min(a + n - src[k], length[k])) * width)
            position += 1
        low, high, wide = halves(at, stop, b, size, flags, work, own)
        if low == 0:
            return False
        position = first
        while position < last and src[order[position]] < a + n:
            k = order[position]
            here = max(src[k], a)
            some = min(src[k] + length[k], a + n) - here
            if some > 0:
                to = out + (dst[k] + here - src[k]) * width
                _stream(low + here - a, high + here - a, wide, some, to, like)
            position += 1
    return True


@njit(nogil=True, cache=True)
def rows_from_frames(
    idx_frames: Array,
    val_frames: Array,
    idx_at: Array,
    val_at: Array,
    idx_size: int,
    val_size: int,
    work: Array,
    chunks: Array,
    count: int,
    src: Array,
    length: Array,
    dst: Array,
    order: Array,
    first: Array,
    last: Array,
    idx_out: Array,
    val_out: Array,
) -> int:
    """Write rows of encoded chunks; return how many chunks were decoded.

    Chunk i, of `count` elements, is the bytes ``idx_at[i] : idx_at[i + 1]`` of `idx_frames`,
    likewise of `val_frames`. Rows ``order[first[i] : last[i]]`` have elements in it. An id has
    `idx_size` bytes, a value `val_size`.
    """
    idx_base, val_base = np.int64(idx_frames.ctypes.data), np.int64(val_frames.ctypes.data)
    idx_to, val_to = np.int64(idx_out.ctypes.data), np.int64(val_out.ctypes.data)
    room = np.int64(work.ctypes.data)
    like = np.zeros(1, idx_out.dtype), np.zeros(1, val_out.dtype)
    done = 0
    while done < chunks.shape[0]:
        i, begin = done, chunks[done] * count
        if not (
            _rows_of_frame(
                idx_base + idx_at[i], idx_base + idx_at[i + 1], idx_size, begin, count,
                src, length, dst, order, first[i], last[i], room, idx_to, like[0][0],
            )
            and _rows_of_frame(
                val_base + val_at[i], val_base + val_at[i + 1], val_size, begin, count,
                src, length, dst, order, first[i], last[i], room, val_to, like[1][0],
            )
        ):  # fmt: skip
            break
        done += 1
    fence()
    return done
