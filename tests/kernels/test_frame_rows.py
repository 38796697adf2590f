"""Rows out of encoded chunks, against indexing of the plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.kernels import frame_rows, frames, gather

CHUNK = 1 << 16


def encoded(values, by_bit, work):
    """Return the frames of all chunks, one after another, and their bounds."""
    room = np.empty(frames.room(CHUNK * values.itemsize), np.uint8)
    coded = [
        room[: frames.encode(values[a : a + CHUNK], by_bit, room, work)].copy()
        for a in range(0, len(values), CHUNK)
    ]
    return np.concatenate(coded), np.cumsum([0, *map(len, coded)])


def lengths(kind, rng):
    """Return lengths of rows that fill some chunks."""
    if kind == "one long":
        return np.array([0, 3 * CHUNK, 0])
    if kind == "empty":
        return np.zeros(50, np.int64)
    most = {"tiny": 5, "usual": 5_000, "longer than a block": 60_000}[kind]
    return rng.integers(0, most, 3 * CHUNK // most)


@pytest.mark.parametrize("kind", ["tiny", "usual", "longer than a block", "one long", "empty"])
@pytest.mark.parametrize("value", [np.uint8, np.uint16])
@pytest.mark.parametrize("targets", [(np.int32, np.float32), (np.uint16, None)])
def test_rows_are_those_of_the_plain_arrays(kind, value, targets):
    rng = np.random.default_rng(5)
    length = lengths(kind, rng)
    src = np.cumsum(length) - length
    idx = rng.integers(0, 20_000, 3 * CHUNK).astype(np.uint16)
    val = np.where(rng.random(3 * CHUNK) < 1e-5, 9_999, rng.poisson(3, 3 * CHUNK))
    val = val.astype(value)
    val[:CHUNK] = np.minimum(val[:CHUNK], 255)  # no high bytes
    # some rows, some of them twice, in any order
    rows = rng.choice(len(length), len(length), replace=True)
    start, size = src[rows], length[rows]
    dst = np.cumsum(size) - size + 3
    order = np.argsort(start, kind="stable")
    chunks, first, last = gather.chunks_of_rows(start, size, order, CHUNK)
    work = np.empty(frames.WORK, np.uint8)
    (idx_coded, idx_at), (val_coded, val_at) = encoded(idx, False, work), encoded(val, True, work)
    n = int(size.sum()) + 6
    idx_out, val_out = np.full(n, 7, targets[0]), np.full(n, 7, targets[1] or value)
    for i, chunk in enumerate(chunks):
        one = slice(i, i + 1)
        done = frame_rows.rows_from_frames(
            idx_coded, val_coded, idx_at[chunk : chunk + 2], val_at[chunk : chunk + 2],
            2, val.itemsize, work, chunks[one], CHUNK, start, size, dst, order, first[one],
            last[one], idx_out, val_out,
        )  # fmt: skip
        assert done == 1
    for plain, out in ((idx, idx_out), (val, val_out)):
        wanted = np.full(n, 7, out.dtype)
        for a, b, to in zip(start, size, dst, strict=True):
            wanted[to : to + b] = plain[a : a + b]
        assert (out == wanted).all()


def test_a_damaged_frame_ends_it():
    work = np.empty(frames.WORK, np.uint8)
    values = np.arange(2 * CHUNK).astype(np.uint16)
    coded, at = encoded(values, False, work)
    whole = coded.copy()
    coded[at[1] + 2] ^= 1  # its flags
    rows = (np.array([k]) for k in (0, 2 * CHUNK, 0, 0))
    out = np.zeros(2 * CHUNK, np.int32), np.zeros(2 * CHUNK, np.float32)
    more = np.array([0, 1]), CHUNK, *rows, np.zeros(2, np.int64), np.ones(2, np.int64), *out
    assert frame_rows.rows_from_frames(whole, coded, at, at, 2, 2, work, *more) == 1
    assert (out[1][:CHUNK] == values[:CHUNK]).all()
    assert not out[1][CHUNK:].any()
