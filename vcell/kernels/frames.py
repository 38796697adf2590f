"""Chunks of small whole numbers, in and out of blosc's frames of lz4.

A frame is what c-blosc 1 writes and reads, for numbers of one or two bytes. Its blocks hold the low
bytes of their numbers, then the high ones, or the planes of their bits, each compressed as a block
of lz4. The blosc of Python's packages decodes with the instructions of 2003; this module uses those
of the processor and is twice as fast on the frames it wrote.

The writer looks for runs of one byte only. lz4 also finds short repetitions by accident, which save
a twentieth of the bytes and take half of the time to decode.

Serial, without the GIL. `decode` trusts nothing in a frame: what it does not know or what
contradicts itself gives False, and memory outside of its arguments is not written.
"""

# ruff: noqa: FBT001  # kernels take positional arguments
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.addresses import (
    WIDE,
    bytes_from_planes,
    fill,
    join,
    load8,
    load16,
    load32,
    load64,
    move,
    planes,
    store8,
    store32,
    store64,
    zeros_above,
    zeros_below,
)
from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Bytes of a block, the only ones that `decode` reads. Older stores have blocks of 64 KiB and
#: chance repetitions, which numcodecs decodes faster.
BLOCK = 1 << 15
#: Bytes that `_unpack` may write beyond what it decodes.
_BEYOND = 2 * WIDE
#: Bytes of the memory that both need for their work.
WORK = 2 * (BLOCK + _BEYOND)
#: The shortest run of one byte that is written as such. Runs of 12 to 48 were tried.
_RUN = 12
_HEADER = 16


def room(size: int) -> int:
    """Return the bytes that a frame of `size` bytes may need, with a checksum behind it."""
    return size + size // 8 + 2 * WIDE + 1024


# Flags of a frame: shuffled by byte or by bit, and lz4 in the upper bits.
_BYTES, _BITS, _LZ4 = 0x01, 0x04, 0x20
# lz4's end: its last bytes are literals, and no match begins in the last 12.
_LAST, _NO_MATCH = 5, 16


@njit(nogil=True, cache=True, inline="always")
def _more(at: int, end: int) -> tuple[int, int]:
    """Read the bytes that lengthen a length of 15; return it and the next address, or -1."""
    n = 0
    while at < end:
        byte = load8(at)
        at += 1
        n += byte
        if byte != 255:
            return n, at
    return n, -1


@njit(nogil=True, cache=True, inline="always")
def _copy(to: int, at: int, n: int, last: int) -> None:
    """Copy n bytes; reads no further than `last`."""
    if at + n + WIDE <= last:
        move(to, at)
        for i in range(WIDE, n, WIDE):
            move(to + i, at + i)
    else:
        for i in range(n):
            store8(to + i, load8(at + i))


@njit(nogil=True, cache=True, inline="always")
def _repeat(to: int, back: int, n: int) -> None:
    """Copy n bytes from `back` bytes before, which may overlap."""
    end = to + n
    if back == 1:
        byte = load8(to - 1)
        for i in range(0, _BEYOND, WIDE):
            fill(to + i, byte)
        for i in range(_BEYOND, n, WIDE):
            fill(to + i, byte)
    elif back >= WIDE:
        while to < end:
            move(to, to - back)
            to += WIDE
    elif back >= 8:
        while to < end:
            store64(to, load64(to - back))
            to += 8
    else:
        while to < end:
            store8(to, load8(to - back))
            to += 1


@njit(nogil=True, cache=True)
def _unpack(at: int, end: int, last: int, to: int, n: int) -> bool:
    """Decode a block of lz4, the bytes ``at:end``, to exactly n bytes.

    Reads no further than `last`; may write `_BEYOND` bytes beyond the n. Most lengths differ from
    the one before, and a branch that is guessed wrong costs as much as 20 instructions: so short
    pieces take the same steps whatever their length.
    """
    begin, stop = to, to + n
    while at < end:
        token = load8(at)
        at += 1
        n = token >> 4
        if n == 15:
            more, at = _more(at, end)
            if at < 0:
                return False
            n += more
        if at + n > end or to + n > stop:
            return False
        _copy(to, at, n, last)
        at += n
        to += n
        if at == end:
            return to == stop
        if at + 3 > end:  # literals follow each match
            return False
        back, n = load16(at), token & 15
        is_long = int(n == 15)
        more = load8(at + 2) * is_long
        at += 2 + is_long
        n += 4 + more
        if more == 255:
            more, at = _more(at, end)
            if at < 0:
                return False
            n += more
        if back == 0 or back > to - begin or to + n > stop:
            return False
        _repeat(to, back, n)
        to += n
    return False


@njit(nogil=True, cache=True)
def _any(at: int, n: int) -> bool:
    """Whether one of n bytes is not zero; without an early end, LLVM makes the loop slow."""
    seen, end = 0, at + n
    while seen == 0 and at < end:
        seen = load64(at) | load64(at + 8) | load64(at + 16) | load64(at + 24)
        at += WIDE
    return seen != 0


@njit(nogil=True, cache=True)
def flags_of(at: int, last: int, size: int, count: int) -> int:
    """Return the flags of the frame ``at:last``, or 0 if it is not one of these frames.

    It has to hold `count` numbers of `size` bytes.
    """
    if last - at < _HEADER or load32(at + 4) != count * size or load8(at + 3) != size:
        return 0
    if load32(at + 8) != BLOCK or count * size % BLOCK:
        return 0
    flags = load8(at + 2)
    known = flags == _LZ4 | _BITS or (size == 2 and flags == _LZ4 | _BYTES)
    return flags if known and last - at >= _HEADER + 4 * (count * size // BLOCK) else 0


@njit(nogil=True, cache=True)
def halves(
    at: int, last: int, b: int, size: int, flags: int, work: int, own: int
) -> tuple[int, int, bool]:
    """Decode block b of the frame ``at:last`` to the low and the high bytes of its numbers.

    Return their addresses, the first 0 if the block is damaged, and whether any high byte is not
    zero. They are in the frame, at `work` (half of `WORK`) or at `own` (`BLOCK` bytes).
    """
    n = BLOCK // size
    i = at + load32(at + _HEADER + 4 * b)
    low = high = work
    for part in range(size):
        if i + 4 > last:
            return 0, 0, False
        stored = load32(i)
        i += 4
        if i + stored > last:
            return 0, 0, False
        low, high = high, work + part * n
        if stored == n:  # not compressed
            high = i
        elif not _unpack(i, i + stored, last, high, n):
            return 0, 0, False
        i += stored
    if size == 1:
        low = high
    wide = size == 2 and (flags != _LZ4 | _BITS or _any(high, n))
    if flags == _LZ4 | _BITS:
        for k in range(0, n >> 3, WIDE):
            bytes_from_planes(low + k, n >> 3, own + 8 * k)
        low = own
        if wide:
            for k in range(0, n >> 3, WIDE):
                bytes_from_planes(high + k, n >> 3, own + n + 8 * k)
            high = own + n
    return low, high, wide


@njit(nogil=True, cache=True)
def decode(frame: Array, out: Array, work: Array) -> bool:
    """Decode a frame into numbers of one or two bytes; False if it is not one of these frames.

    Parameters
    ----------
    frame, work
        Bytes; `work` has `WORK` of them.
    out
        uint8 or uint16.
    """
    size = out.itemsize
    at, to = np.int64(frame.ctypes.data), np.int64(out.ctypes.data)
    last, base = at + len(frame), np.int64(work.ctypes.data)
    own = base + WORK // 2
    flags = flags_of(at, last, size, len(out))
    if flags == 0:
        return False
    for b in range(len(out) * size // BLOCK):
        low, high, _ = halves(at, last, b, size, flags, base, own if size == 2 else to)
        if low == 0:
            return False
        if size == 2:
            for k in range(0, BLOCK // 2, WIDE):
                join(low + k, high + k, to + 2 * k)
        to += BLOCK
    return True


@njit(nogil=True, cache=True, inline="always")
def _write_length(to: int, n: int) -> int:
    """Write what a length has above 15."""
    if n >= 15:
        n -= 15
        while n >= 255:
            store8(to, 255)
            to += 1
            n -= 255
        store8(to, n)
        to += 1
    return to


@njit(nogil=True, cache=True)
def _pack(at: int, end: int, to: int) -> int:
    """Write the bytes ``at:end`` as a block of lz4 whose matches are runs; return its end."""
    begin, stop = at, end - _NO_MATCH
    while at < stop:
        # where neighbouring bytes are equal, the difference has a zero byte
        other = load64(at) ^ load64(at + 1)
        if other != 0:
            at += 8 - (zeros_above(other) >> 3)
            continue
        run = at + 8
        while run < stop and other == 0:
            other = load64(run) ^ load64(run + 1)
            run += 8 if other == 0 else zeros_below(other) >> 3
        run = min(run + 1, end - _LAST)
        if run - at >= _RUN:
            literals, matched = at + 1 - begin, run - at - 1 - 4
            store8(to, min(literals, 15) << 4 | min(matched, 15))
            to = _write_length(to + 1, literals)
            for i in range(0, literals, WIDE):
                move(to + i, begin + i)
            to += literals
            store8(to, 1)  # from one byte before
            store8(to + 1, 0)
            to = _write_length(to + 2, matched)
            begin = run
        at = run
    literals = end - begin
    store8(to, min(literals, 15) << 4)
    to = _write_length(to + 1, literals)
    for i in range(0, literals, WIDE):
        move(to + i, begin + i)
    return to + literals


@njit(nogil=True, cache=True)
def _has_runs(some: Array) -> bool:
    """Whether an eighth of the neighbours are equal, or more."""
    n = 0
    for i in range(len(some) - 1):
        n += some[i] == some[i + 1]
    return n > len(some) >> 3


@njit(nogil=True, cache=True)
def _split(values: Array, low: Array, high: Array) -> None:
    for i in range(len(values)):
        low[i] = values[i] & np.uint16(255)
        high[i] = values[i] >> np.uint16(8)


@njit(nogil=True, cache=True)
def encode(values: Array, by_bit: bool, out: Array, work: Array) -> int:
    """Write whole blocks of numbers of one or two bytes as a frame; return its bytes.

    ``out`` has `room` for them.
    """
    size = values.itemsize
    n, n_blocks = BLOCK // size, len(values) * size // BLOCK
    base = np.int64(work.ctypes.data)
    at = np.int64(out.ctypes.data)
    to = at + _HEADER + 4 * n_blocks
    for b in range(n_blocks):
        store32(at + _HEADER + 4 * b, to - at)
        own = values[b * n : (b + 1) * n]
        source = base
        if size == 1:
            source = np.int64(own.ctypes.data)
        else:
            _split(own, work[:n], work[n : 2 * n])
        if by_bit:
            turned = base + BLOCK
            for part in range(size):
                for i in range(0, n, WIDE):
                    planes(source + part * n + i, turned + part * n + i // 8, n // 8)
            source = turned
        for part in range(size):
            where = source + part * n
            packed = n
            if by_bit or _has_runs(work[part * n : part * n + (n >> 3)]):  # a sample
                packed = _pack(where, where + n, to + 4) - to - 4
            if packed >= n:
                packed = n
                for i in range(0, n, WIDE):
                    move(to + 4 + i, where + i)
            store32(to, packed)
            to += 4 + packed
    out[0], out[1], out[2], out[3] = 2, 1, _LZ4 | (_BITS if by_bit else _BYTES), size
    store32(at + 4, len(values) * size)
    store32(at + 8, BLOCK)
    store32(at + 12, to - at)
    return int(to - at)
