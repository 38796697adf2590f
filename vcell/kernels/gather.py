"""Moving rows of sparse matrices: out of decoded chunks, into batches, dense or compressed.

Legend: `idx`/`val` are the column ids and values of concatenated CSR rows; row `i` of a request
occupies `src[i] : src[i] + length[i]` there and goes to `dst[i] : dst[i] + length[i]` of the
output. Serial, without the GIL: callers use their own threads.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.addresses import LINE, drain_line, fence, stream_line
from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Counts below this are looked up when log-normalising: over 99 % of the non-zeros.
N_LOOKUP = 64
#: How dense rows are written.
CACHED, STREAMED, ZERO = 0, 1, 2


@njit(nogil=True, cache=True, inline="always")
def _copy(a: Array, b: Array) -> None:
    """Copy with a change of type. Indices start at 0: other index arithmetic is not vectorised."""
    for j in range(a.shape[0]):
        b[j] = a[j]


@njit(nogil=True, cache=True)
def _stream(a: Array, b: Array) -> None:
    """Copy past the cache, with a change of type.

    A line of the cache that is streamed must not be stored to as well: it would be read again.
    """
    width, n = b.itemsize, a.shape[0]
    head = min((-np.int64(b.ctypes.data) & (LINE - 1)) // width, n)
    tail = n - (n - head) % (LINE // width)
    _copy(a[:head], b[:head])
    for j in range(head, tail, LINE // width):
        stream_line(a, j, b, j)
    _copy(a[tail:], b[tail:])


@njit(nogil=True, cache=True)
def chunks_of_rows(
    src: Array, length: Array, order: Array, chunk_size: int
) -> tuple[Array, Array, Array]:
    """List the chunks that hold the rows `order` (ascending in `src`), and which rows each holds.

    Returns
    -------
    chunks, first, last
        Chunk numbers, ascending, and for each the half-open range of positions in `order`
        of the rows that have elements in it.
    """
    n, previous = 0, np.int64(-1)
    for k in order:
        if length[k]:
            a = src[k] // chunk_size
            b = (src[k] + length[k] - 1) // chunk_size
            n += b - max(a, previous + 1) + 1
            previous = max(b, previous)
    chunks = np.empty(n, np.int64)
    first = np.empty(n, np.int64)
    last = np.empty(n, np.int64)
    n, previous = 0, np.int64(-1)
    for position in range(order.shape[0]):
        k = order[position]
        if length[k] == 0:
            continue
        a = src[k] // chunk_size
        b = (src[k] + length[k] - 1) // chunk_size
        for m in range(n - 1, -1, -1):  # chunks already listed that contain a part of this row
            if chunks[m] < a:
                break
            last[m] = position + 1
        for c in range(max(a, previous + 1), b + 1):
            chunks[n] = c
            first[n] = position
            last[n] = position + 1
            n += 1
        previous = max(b, previous)
    return chunks, first, last


@njit(nogil=True, cache=True)
def rows_from_chunk(
    idx: Array,
    val: Array,
    begin: int,
    end: int,
    src: Array,
    length: Array,
    dst: Array,
    order: Array,
    first: int,
    last: int,
    idx_out: Array,
    val_out: Array,
) -> None:
    """Copy the part of rows `order[first:last]` in one chunk, which holds elements `begin:end`."""
    for position in range(first, last):
        k = order[position]
        a = max(src[k], begin)
        b = min(src[k] + length[k], end)
        if b > a:
            to = dst[k] + a - src[k]
            _stream(idx[a - begin : b - begin], idx_out[to : to + b - a])
            _stream(val[a - begin : b - begin], val_out[to : to + b - a])
    fence()


@njit(nogil=True, cache=True)
def copy_rows(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    dst: Array,
    first: int,
    last: int,
    idx_out: Array,
    val_out: Array,
) -> None:
    """Copy rows `first:last` of a request from one array that holds them all."""
    for k in range(first, last):
        n = length[k]
        _copy(idx[src[k] : src[k] + n], idx_out[dst[k] : dst[k] + n])
        _copy(val[src[k] : src[k] + n], val_out[dst[k] : dst[k] + n])


@njit(nogil=True, cache=True)
def count_columns(idx: Array, src: Array, length: Array, column: Array, out: Array) -> None:
    """Count the elements that `copy_columns` keeps of each row."""
    for k in range(src.shape[0]):
        n = 0
        for j in range(src[k], src[k] + length[k]):
            n += column[idx[j]] >= 0
        out[k] = n


@njit(nogil=True, cache=True)
def copy_columns(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    column: Array,
    dst: Array,
    first: int,
    last: int,
    idx_out: Array,
    val_out: Array,
) -> None:
    """Like `copy_rows`, but copy only columns with `column[c] >= 0`, renumbered."""
    for k in range(first, last):
        to = dst[k]
        for j in range(src[k], src[k] + length[k]):
            c = column[idx[j]]
            if c >= 0:
                idx_out[to] = c
                val_out[to] = val[j]
                to += 1


@njit(nogil=True, cache=True)
def log_normalise(val: Array, indptr: Array, scale: Array) -> None:
    """`log1p(value * scale[row])` in place, float32; small whole counts come from a table."""
    table = np.empty(N_LOOKUP, np.float32)
    for r in range(scale.shape[0]):
        a = indptr[r]
        b = indptr[r + 1]
        s = np.float32(scale[r])
        use_table = b - a > 2 * N_LOOKUP
        if use_table:
            for v in range(N_LOOKUP):
                table[v] = np.log1p(np.float32(v) * s)
        for j in range(a, b):
            x = val[j]
            if use_table and 0 <= x < N_LOOKUP and x == np.floor(x):
                val[j] = table[int(x)]
            else:
                val[j] = np.log1p(x * s)


@njit(nogil=True, cache=True, inline="always")
def _put(ids: Array, values: Array, row: Array) -> None:
    for j in range(ids.shape[0]):
        row[ids[j]] = values[j]


@njit(nogil=True, cache=True)
def _drain(own: Array, out: Array, ids: Array, values: Array, other: Array) -> None:
    """Write a row past the cache and clear it; meanwhile put values into the other row.

    Stores are done in order, and those to memory take longest. Between every four of them there is
    time to put the next row's values, which would otherwise wait for all of them.
    """
    n, line = out.shape[0], LINE // out.itemsize
    head = min((-np.int64(out.ctypes.data) & (LINE - 1)) // out.itemsize, n)
    tail = n - (n - head) % line
    own_head, own_tail = own[:head], own[tail:]
    _copy(own_head, out[:head])
    _copy(own_tail, out[tail:])
    own_head[:] = 0
    own_tail[:] = 0
    turns = (tail - head) // (4 * line)
    each = ids.shape[0] // max(turns, 1)
    at = head
    for turn in range(turns):
        for _ in range(4):
            drain_line(own, at, out, at)
            at += line
        for j in range(turn * each, (turn + 1) * each):
            other[ids[j]] = values[j]
    while at < tail:
        drain_line(own, at, out, at)
        at += line
    _put(ids[turns * each :], values[turns * each :], other)


@njit(nogil=True, cache=True)
def _write(k: int, ids: Array, values: Array, how: int, own: Array, out: Array) -> None:
    """Write row k. If streamed, prepare it in `own`, two rows in turns, and write row k - 1.

    The row after the last one, without values, ends a stream.
    """
    if how != STREAMED:
        if k < out.shape[0]:
            if how != ZERO:
                out[k] = 0
            _put(ids, values, out[k])
    elif k:
        _drain(own[(k - 1) & 1], out[k - 1], ids, values, own[k & 1])
    else:
        _put(ids, values, own[0])
    if k == out.shape[0]:
        fence()


@njit(nogil=True, cache=True)
def densify(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    first: int,
    last: int,
    how: int,
    own: Array,
    out: Array,
) -> None:
    """Write rows `first:last` of a request as the dense rows of `out`.

    `how` is `CACHED`, or, for an `out` that is larger than the cache, `STREAMED`, or `ZERO` where
    it is new and all zero. `own`, for streaming, has two rows of zeros, in a type that holds the
    values: the less memory, the better.
    """
    for k in range(first, last):
        a, b = src[k], src[k] + length[k]
        _write(k - first, idx[a:b], val[a:b], how, own, out)
    _write(last - first, idx[:0], val[:0], how, own, out)


@njit(nogil=True, cache=True)
def densify_columns(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    column: Array,
    first: int,
    last: int,
    how: int,
    own: Array,
    out: Array,
) -> None:
    """Like `densify`, with columns renumbered by `column`, without those below zero."""
    most = length[first:last].max() if last > first else 0
    ids, values = np.empty(most, np.int64), np.empty(most, own.dtype)
    for k in range(first, last):
        n = 0
        for j in range(src[k], src[k] + length[k]):
            c = column[idx[j]]
            if c >= 0:
                ids[n], values[n] = c, val[j]
                n += 1
        _write(k - first, ids[:n], values[:n], how, own, out)
    _write(last - first, ids[:0], values[:0], how, own, out)


@njit(nogil=True, cache=True)
def densify_log(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    scale: Array,
    column: Array,
    first: int,
    last: int,
    how: int,
    own: Array,
    out: Array,
) -> None:
    """Like `densify_columns`, log-normalised: `log1p(value * scale[k])`."""
    table = np.empty(N_LOOKUP, np.float32)
    most = length[first:last].max() if last > first else 0
    ids, values = np.empty(most, np.int64), np.empty(most, np.float32)
    for k in range(first, last):
        s = np.float32(scale[k])
        use_table = length[k] > 2 * N_LOOKUP
        if use_table:
            for v in range(N_LOOKUP):
                table[v] = np.log1p(np.float32(v) * s)
        n = 0
        for j in range(src[k], src[k] + length[k]):
            c = column[idx[j]]
            if c >= 0:
                x = np.float32(val[j])
                if use_table and 0 <= x < N_LOOKUP and x == np.floor(x):
                    values[n] = table[int(x)]
                else:
                    values[n] = np.log1p(x * s)
                ids[n] = c
                n += 1
        _write(k - first, ids[:n], values[:n], how, own, out)
    _write(last - first, ids[:0], values[:0], how, own, out)


@njit(nogil=True, cache=True)
def to_columns(
    indptr: Array,
    idx: Array,
    val: Array,
    first_row: int,
    cursor: Array,
    row_out: Array,
    val_out: Array,
) -> None:
    """Add a block of rows to a matrix by columns; `cursor` is the next position of each column."""
    for r in range(indptr.shape[0] - 1):
        for j in range(indptr[r], indptr[r + 1]):
            c = idx[j]
            row_out[cursor[c]] = first_row + r
            val_out[cursor[c]] = val[j]
            cursor[c] += 1


@njit(nogil=True, cache=True)
def add_counts(idx: Array, counts: Array) -> None:
    """Count the elements of each column."""
    for j in range(idx.shape[0]):
        counts[idx[j]] += 1
