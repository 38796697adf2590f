"""Frames of blosc: what the kernel writes and reads, against numcodecs."""

from __future__ import annotations

import numpy as np
import pytest
from numcodecs import blosc

from vcell.kernels import frames, gather

N = 1 << 16
GUARD = 4096


def guarded(n, dtype):
    """Return memory between bytes that nobody may write to, and a check of them."""
    size = n * np.dtype(dtype).itemsize
    whole = np.full(size + 2 * GUARD, 0xA5, np.uint8)

    def untouched():
        return bool((whole[:GUARD] == 0xA5).all() and (whole[-GUARD:] == 0xA5).all())

    return whole[GUARD:-GUARD].view(dtype), untouched


def chunks(dtype):
    """Return chunks of numbers that are hard in different ways."""
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    ids = np.concatenate([np.sort(rng.permutation(20_000)[:2_580]) for _ in range(26)])[:N]
    counts = np.minimum(rng.negative_binomial(0.4, 0.15, N) + 1, top)
    rare = np.zeros(N)
    rare[rng.permutation(N)[:300]] = top
    steps = np.repeat(rng.integers(0, top, N), rng.integers(1, 40, N))[:N]
    found = {
        "nothing": np.zeros(N), "one value": np.full(N, top), "noise": rng.integers(0, top, N),
        "counts": counts, "rare": rare, "steps": steps, "every other": np.arange(N) % 2,
        "period": np.arange(N) % 23, "last": np.arange(N) == N - 1,
    }  # fmt: skip
    if dtype == np.uint16:
        found["ids"] = ids
    return {name: values.astype(dtype) for name, values in found.items()}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("by_bit", [False, True])
def test_numcodecs_reads_what_is_written(dtype, by_bit):
    if dtype == np.uint8 and not by_bit:
        pytest.skip("bytes of single bytes are not shuffled")
    for name, values in chunks(dtype).items():
        room, room_untouched = guarded(frames.room(values.nbytes), np.uint8)
        work, work_untouched = guarded(frames.WORK, np.uint8)
        out, out_untouched = guarded(N, dtype)
        frame = room[: frames.encode(values, by_bit, room, work)].copy()
        assert (np.frombuffer(blosc.decompress(frame.tobytes()), dtype) == values).all(), name
        assert frames.decode(frame, out, work), name
        assert (out == values).all(), name
        for untouched in (room_untouched, work_untouched, out_untouched):
            assert untouched(), name


@pytest.mark.parametrize("level", [1, 5, 9])
@pytest.mark.parametrize("kind", ["lz4", "lz4hc"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_of_numcodecs_are_read(level, kind, dtype):
    n = frames.BLOCK // np.dtype(dtype).itemsize  # a frame of one block
    read = set()
    for name, values in chunks(dtype).items():
        frame = blosc.compress(values[-n:], kind.encode(), level, blosc.BITSHUFFLE)
        out, untouched = guarded(n, dtype)
        work = np.empty(frames.WORK, np.uint8)
        if frames.decode(np.frombuffer(frame, np.uint8), out, work):
            assert (out == values[-n:]).all(), name
            read.add(name)
        assert untouched(), name
    assert set(chunks(dtype)) - read <= {"noise"}  # stored without compression


@pytest.mark.parametrize(
    ("kind", "shuffle", "block"),
    [("zstd", 2, 1 << 15), ("lz4", 0, 1 << 15), ("lz4", 2, 1 << 16), ("blosclz", 2, 1 << 15)],
)
def test_other_frames_are_left_to_numcodecs(kind, shuffle, block):
    values = chunks(np.uint16)["counts"]
    frame = np.frombuffer(blosc.compress(values, kind.encode(), 5, shuffle, block), np.uint8)
    work = np.empty(frames.WORK, np.uint8)
    assert not frames.decode(frame, np.empty(N, np.uint16), work)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_damage_writes_to_no_other_memory(dtype):
    values = chunks(dtype)["counts"]
    work, work_untouched = guarded(frames.WORK, np.uint8)
    room = np.empty(frames.room(values.nbytes), np.uint8)
    frame = room[: frames.encode(values, True, room, work)].copy()
    rng = np.random.default_rng(1)
    out, out_untouched = guarded(N, dtype)
    refused = 0
    for size in rng.integers(0, len(frame), 40):
        refused += not frames.decode(frame[:size].copy(), out, work)
    assert refused == 40  # a frame that was cut short
    for _ in range(300):
        bad = frame.copy()
        first = rng.integers(0, 40) if rng.random() < 0.5 else rng.integers(0, len(frame))
        bad[first : first + 4] = rng.integers(0, 256, len(bad[first : first + 4]))
        frames.decode(bad, out, work)
    assert work_untouched()
    assert out_untouched()


@pytest.mark.parametrize("source", [np.uint8, np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("target", [np.int32, np.float32, np.uint16])
def test_rows_are_copied_past_the_cache_wherever_they_begin(source, target):
    if np.dtype(source).itemsize > 2 and source != target:
        pytest.skip("stores of wide values are read in their own types")
    rng = np.random.default_rng(2)
    n = 300
    length = rng.integers(0, 150, 40)
    src = np.cumsum(length) - length
    chunk = rng.integers(0, 255, int(length.sum())).astype(source)
    other = rng.integers(0, 65_535, len(chunk)).astype(np.uint16)
    order = np.arange(40)
    for offset in range(16):
        dst = np.append(rng.permutation(40) * n + offset, 0)
        idx, val = np.zeros(41 * n, np.uint16), np.zeros(41 * n, target)
        gather.rows_from_chunk(
            other, chunk, 0, len(chunk), src, length, dst, order, 0, 40, idx, val
        )
        wanted_idx, wanted_val = np.zeros_like(idx), np.zeros_like(val)
        for k in range(40):
            at = slice(dst[k], dst[k] + length[k])
            wanted_idx[at] = other[src[k] : src[k] + length[k]]
            wanted_val[at] = chunk[src[k] : src[k] + length[k]]
        assert (idx == wanted_idx).all()
        assert (val == wanted_val).all()


@pytest.mark.parametrize("kept", [np.uint16, np.float32])
@pytest.mark.parametrize("genes", [5, 37, 256, 1_001])
def test_dense_rows_are_equal_past_the_cache(genes, kept):
    rng = np.random.default_rng(3)
    length = rng.integers(0, genes, 30)
    src = np.cumsum(length) - length
    idx = np.concatenate([rng.permutation(genes)[:n] for n in length]).astype(np.uint16)
    val = rng.integers(1, 300, len(idx)).astype(np.uint16)
    column = rng.permutation(genes).astype(np.int32) - 2
    scale = rng.random(30).astype(np.float32)
    plain = np.zeros((30, genes + 2), np.float32)
    plain[np.repeat(np.arange(30), length), idx] = val
    by_column = np.zeros_like(plain)  # those below zero go to the last two
    by_column[:, column] = plain[:, :genes]
    rows = idx, val, src, length
    for kernel, more, wanted in (
        (gather.densify, (), plain),
        (gather.densify_columns, (column,), by_column),
        (gather.densify_log, (scale, column), np.log1p(by_column * scale[:, None])),
    ):
        made = []
        for how, before in ((gather.CACHED, np.nan), (gather.STREAMED, np.nan), (gather.ZERO, 0)):
            out = np.full((30 * genes + 3), before, np.float32)
            out[:3] = np.nan
            own = np.zeros((2, genes), np.float32 if kernel is gather.densify_log else kept)
            kernel(*rows, *more, 0, 30, how, own, out[3:].reshape(30, genes))
            assert np.isnan(out[:3]).all()
            assert not own.any()  # ready for other rows
            made.append(out[3:].reshape(30, genes))
        np.testing.assert_allclose(made[0], wanted[:, :genes], rtol=2e-7)
        for other in made[1:]:
            assert (made[0] == other).all()


def test_a_range_of_rows_is_streamed():
    rng = np.random.default_rng(4)
    length = rng.integers(0, 300, 20)
    src = np.cumsum(length) - length
    idx = np.concatenate([rng.permutation(300)[:n] for n in length]).astype(np.uint16)
    val = rng.integers(1, 200, len(idx)).astype(np.uint8)
    whole = np.zeros((20, 300), np.float32)
    whole[np.repeat(np.arange(20), length), idx] = val
    for first, last in ((0, 20), (7, 8), (3, 12), (5, 5)):
        out = np.full((last - first, 300), np.nan, np.float32)
        own = np.zeros((2, 300), np.uint8)
        gather.densify(idx, val, src, length, first, last, gather.STREAMED, own, out)
        assert (out == whole[first:last]).all()
