"""More than 2^31 non-zeros: the arithmetic, without the bytes."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import builders
from vcell.data import open_cells
from vcell.data.chunked import _pieces
from vcell.data.matrix import Bound, CsrMatrix, Layout, cut_by_size

LAYOUT = Layout("csr", "none", None, "int32", None)


class _Endless:
    """An array of any length whose element i is i modulo a prime."""

    where = "endless/data"

    def __init__(self, n: int, prime: int, dtype: type) -> None:
        self.shape, self.prime, self.dtype = (n,), prime, np.dtype(dtype)

    def tasks(self, starts: Any, stops: Any, out: Any) -> list[Any]:
        wanted = [np.arange(a, b) % self.prime for a, b in zip(starts, stops, strict=True)]
        out[:] = np.concatenate(wanted)
        return []


def test_positions_beyond_32_bits_are_computed_right():
    row, n_rows = 1 << 20, 5000  # 5.2e9 non-zeros
    indptr = np.arange(n_rows + 1, dtype=np.int64) * row
    nnz = int(indptr[-1])
    assert nnz > 2**32
    matrix = CsrMatrix(
        _Endless(nnz, 1_000_003, np.float32), _Endless(nnz, 1_048_573, np.int64), indptr,
        (n_rows, 1_048_573), LAYOUT,
    )  # fmt: skip
    cuts = list(matrix.cuts(range(n_rows), None, Bound(3 * row, 1 << 14)))
    assert [c.start for c in cuts] == list(range(0, n_rows, 3))
    last = matrix.stored(range(n_rows - 1, n_rows), np.dtype(np.float32))
    where = np.arange(nnz - row, nnz)
    assert np.array_equal(last.indices, where % 1_048_573)
    assert np.array_equal(last.data, (where % 1_000_003).astype(np.float32))


def test_chunks_beyond_32_bits_are_found():
    start, size = 2**33 + 5, 1 << 17
    band, low, high, place = _pieces(np.array([start]), np.array([start + 3 * size]), size)
    assert band.tolist() == [start // size + i for i in range(4)]
    assert (high - low).sum() == 3 * size
    assert place.tolist() == [0, size - 5, 2 * size - 5, 3 * size - 5]


def test_a_sparse_file_of_more_than_2_31_values_is_read(tmp_path):
    """A dense file of 2.6e9 values, of which only a few chunks were ever written."""
    path = tmp_path / "big.h5ad"
    n, g = 130_000, 20_000
    builders.annotated(np.zeros((2, 2), np.float32)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X"], file["obs"], file["var"]
        x = file.create_dataset("X", (n, g), "u1", chunks=(10, g), compression="gzip")
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        x[n - 1, g - 1] = 7
        for name, size in (("obs", n), ("var", g)):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "_index": "_index"})
            group["_index"] = np.arange(size).astype("S")
    with open_cells(path) as source:
        [block] = source.chunks(slice(n - 5, n))
    assert (block.nnz, block.rows[-1], block.indices[0], block.data[0]) == (1, n - 1, g - 1, 7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_cuts_cover_all_rows_and_keep_the_bound(seed, bound):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, rng.integers(0, 30)) * (rng.random() < 0.9)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    for rows in (range(len(lengths)), np.flatnonzero(rng.random(len(lengths)) < 0.5)):
        cuts = [np.asarray(c) for c in cut_by_size(rows, indptr, Bound(bound, 5))]
        joined = np.concatenate(cuts) if cuts else np.zeros(0)
        assert joined.tolist() == list(rows)
        for cut in cuts:
            assert 1 <= len(cut) <= 5
            assert len(cut) == 1 or lengths[cut].sum() <= bound
