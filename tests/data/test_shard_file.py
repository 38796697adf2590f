"""Chunks of a shard, wherever they lie in its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vcell.data.shard_file import NOT_WRITTEN, ShardDamagedError, ShardFile, with_crc

CHUNKS = [bytes([n]) * (3 + n) for n in range(6)]


def shard(folder: Path, order: list[int]) -> ShardFile:
    """Write the chunks in an order, others not at all, and open the file."""
    index = np.full((len(CHUNKS), 2), NOT_WRITTEN, "<u8")
    body = b"to be skipped"
    for number in order:
        coded = with_crc(CHUNKS[number])
        index[number] = len(body), len(coded)
        body += coded
    path = folder / "0"
    path.write_bytes(body + with_crc(index.tobytes()))
    return ShardFile(path, len(CHUNKS), checked=True)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 1, 4, 2, 3, 5]])
@pytest.mark.parametrize(("first", "n"), [(0, 6), (1, 3), (5, 1)])
def test_neighbours_are_read_one_after_another(
    order: list[int], first: int, n: int, tmp_path: Path
) -> None:
    file = shard(tmp_path, order)
    out = np.zeros(200, np.uint8)
    ends = file.read_into(out, 7, first, n)
    wanted = b"".join(with_crc(chunk) for chunk in CHUNKS[first : first + n])
    assert out[7 : ends[-1]].tobytes() == wanted
    assert np.diff([7, *ends]).tolist() == [len(CHUNKS[first + i]) + 4 for i in range(n)]
    assert not out[:7].any()
    assert not out[ends[-1] :].any()
    file.close()


def test_the_chunk_at_fault_is_named(tmp_path: Path) -> None:
    out = np.zeros(200, np.uint8)
    file = shard(tmp_path, [0, 1, 2, 4, 5])
    with pytest.raises(ShardDamagedError, match="chunk 3 is missing"):
        file.read_into(out, 0, 1, 4)
    file.close()
    path = tmp_path / "0"
    file = shard(tmp_path, [5, 0, 1, 2, 3, 4])
    offset, _ = file.places(3)[0]
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardDamagedError, match="chunk 3 does not match its checksum"):
        file.read_into(out, 0, 1, 4)
    file.close()
