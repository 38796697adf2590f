"""What is written is what anndata reads, and it appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from tests.data import builders
from vcell.data import CellWriter, open_cells
from vcell.data.fingerprint import WHOLE, fingerprint
from vcell.errors import UserError

TABLE = builders.counts()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("size", [1, 60, 10**6])
def test_streamed_cells_come_back_the_same(dense, compression, size, tmp_path):
    adata = builders.annotated(TABLE)
    path = tmp_path / "out.h5ad"
    names = ["target_gene", "batch", "plain", "score", "n", "flag"]
    with open_cells(adata) as source:
        columns = {name: source.obs(name) for name in names}
        obs = {n: c.categories if c.kind == "categorical" else None for n, c in columns.items()}
        with CellWriter(
            path, source.genes, obs=obs, var={"id": source.var("id").values},
            uns={"log1p": {"base": None}, "note": "x"}, compression=compression, dense=dense,
        ) as out:  # fmt: skip
            for block in source.chunks(max_nnz=size):
                rows = {n: c.values[block.rows] for n, c in columns.items()}
                out.append(block, obs=rows, names=source.cells[block.rows])
    got = anndata.read_h5ad(path)
    assert np.array_equal(got.X if dense else got.X.toarray(), TABLE)
    assert sp.issparse(got.X) != dense
    assert got.obs_names.tolist() == adata.obs_names.tolist()
    assert got.var["id"].tolist() == adata.var["id"].tolist()
    assert got.uns["note"] == "x"
    for name in names:
        assert got.obs[name].astype(str).tolist() == adata.obs[name].astype(str).tolist()
    assert got.obs["target_gene"].cat.categories.tolist() == ["non-targeting", "TP53", "Ünïcode"]
    with open_cells(path) as source:
        assert np.array_equal(np.concatenate([b.toarray() for b in source.chunks()]), TABLE)


@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u2"])
def test_chunks_compressed_on_threads_are_those_of_hdf5(chunk, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("vcell.data.write.CHUNK", chunk)
    path, cells = tmp_path / "out.h5ad", sp.csr_matrix(TABLE)
    with CellWriter(path, range(TABLE.shape[1]), compression="gzip", dtype=dtype) as out:
        for first, last in ((0, 1), (1, 40), (40, 40), (40, len(TABLE))):
            out.append(cells[first:last])
    with h5py.File(path) as file:
        x = file["X"]
        assert x["data"].compression == "gzip"
        assert (x["data"].dtype, x["data"].chunks) == (np.dtype(dtype), (chunk,))
        np.testing.assert_array_equal(x["data"][...], cells.data)
        np.testing.assert_array_equal(x["indices"][...], cells.indices)
        np.testing.assert_array_equal(x["indptr"][...], cells.indptr)


@pytest.mark.parametrize(
    ("compression", "n_cells"), [(None, None), ("gzip", None), (None, len(TABLE))]
)
@pytest.mark.parametrize(
    "change", [lambda x: x, np.asfortranarray, lambda x: x.astype("f8"), sp.csr_matrix]
)
def test_full_tables_come_back_the_same(change, compression, n_cells, tmp_path, monkeypatch):
    monkeypatch.setattr("vcell.data.write.CHUNK", 9 * TABLE.shape[1])
    path, table = tmp_path / "out.h5ad", TABLE.astype("i4")
    how = {"dense": True, "dtype": "i4", "compression": compression, "n_cells": n_cells}
    with CellWriter(path, range(TABLE.shape[1]), **how) as out:
        for first, last in ((0, 8), (8, 8), (8, 19), (19, 40), (40, len(table))):
            out.append(change(table[first:last]))
    with h5py.File(path) as file:
        assert file["X"].chunks == (None if n_cells else (8, TABLE.shape[1]))
        np.testing.assert_array_equal(file["X"][...], table)
    with open_cells(path) as source:
        assert np.array_equal(np.concatenate([b.toarray() for b in source.chunks()]), table)


@pytest.mark.parametrize("n_cells", [1, 3])
def test_another_number_of_cells_than_announced_is_an_error(n_cells, tmp_path):
    path = tmp_path / "out.h5ad"
    with (
        pytest.raises(ValueError, match="cells"),
        CellWriter(path, ["a"], dense=True, n_cells=n_cells) as out,
    ):
        out.append(np.ones((2, 1)))
    assert not path.exists()


def test_names_and_obsm_are_written_in_the_order_of_the_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("vcell.data.write.ROWS", 5)
    path, rows = tmp_path / "out.h5ad", np.arange(23, dtype=np.float32)[:, None]
    reused = np.empty((23, 1), np.float32)
    with CellWriter(path, ["a"], obsm={"z": 1}) as out:
        for first, last in ((0, 2), (2, 2), (2, 4), (4, 15), (15, 23)):
            part = reused[: last - first]
            part[:] = rows[first:last]
            out.append(
                rows[first:last], names=[f"c{i}" for i in range(first, last)], obsm={"z": part}
            )
    got = anndata.read_h5ad(path)
    assert got.obs_names.tolist() == [f"c{i}" for i in range(23)]
    assert np.array_equal(got.obsm["z"], rows)


def test_codes_dense_rows_and_scipy_matrices_are_taken(tmp_path):
    path = tmp_path / "out.h5ad"
    with CellWriter(path, ["a", "b"], obs={"kind": ["x", "y"], "free": None}) as out:
        out.append(np.array([[1, 0], [0, 2]]), obs={"kind": [1, -1], "free": ["q", "p"]})
        out.append(sp.csr_matrix([[0, 3]]), obs={"kind": [0], "free": ["q"]})
    got = anndata.read_h5ad(path)
    assert got.X.toarray().tolist() == [[1, 0], [0, 2], [0, 3]]
    assert got.obs["kind"].astype(str).tolist() == ["y", "nan", "x"]
    assert got.obs["free"].tolist() == ["q", "p", "q"]
    assert got.obs["free"].cat.categories.tolist() == ["p", "q"]
    assert got.obs_names.tolist() == ["cell-0", "cell-1", "cell-2"]


@pytest.mark.parametrize("how", [{}, {"dense": True}, {"dense": True, "n_cells": 0}])
def test_no_cells_at_all_are_a_valid_file(how, tmp_path):
    path = tmp_path / "out.h5ad"
    with CellWriter(path, ["a", "b"], obs={"kind": ["x"], "free": None}, **how):
        pass
    assert anndata.read_h5ad(path).shape == (0, 2)
    with open_cells(path) as source:
        assert list(source.chunks()) == []


def test_nothing_is_left_of_a_file_that_failed(tmp_path):
    path = tmp_path / "out.h5ad"
    path.write_text("what was here before")

    def fail() -> None:
        with CellWriter(path, ["a"]) as out:
            out.append(np.ones((2, 1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5ad"]
    assert path.read_text() == "what was here before"


def test_a_full_disk_is_one_clear_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "out.h5ad"
    (tmp_path / f"out.h5ad.tmp-{os.getpid()}").symlink_to("/dev/full")
    message = r"out\.h5ad cannot be written"
    with pytest.raises(UserError, match=message), CellWriter(path, ["a"]) as out:
        out.append(np.ones((100_000, 1)))
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_one_clear_line(tmp_path):
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match="cannot be written"):
        CellWriter(folder / "out.h5ad", ["a"])


def test_wrong_use_is_an_error_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="3 genes"), CellWriter(tmp_path / "a.h5ad", ["a"]) as out:
        out.append(sp.csr_matrix((1, 3)))
    with pytest.raises(ValueError, match="columns"), CellWriter(tmp_path / "a.h5ad", ["a"]) as out:
        out.append(np.ones((1, 1)), obs={"x": [1]})
    with (
        pytest.raises(ValueError, match="no category 'z'"),
        CellWriter(tmp_path / "a.h5ad", ["a"], obs={"x": ["y"]}) as out,
    ):
        out.append(np.ones((1, 1)), obs={"x": ["z"]})


# --- fingerprints


def test_a_fingerprint_is_of_the_content_alone(tmp_path):
    for size in (10, WHOLE * 2):
        content = np.random.default_rng(size).bytes(size)
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / "b", (1, 1))
        first = fingerprint(tmp_path / "a")
        assert first == fingerprint(tmp_path / "b")
        assert len(first) == 32
        for change in (content[:-1], b"x" + content[1:], content[:-1] + b"x"):
            (tmp_path / "b").write_bytes(change)
            assert fingerprint(tmp_path / "b") != first


def test_a_folder_changes_with_any_small_file_in_it(tmp_path):
    folder = tmp_path / "cells.zarr"
    (folder / "X").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "X" / "0").write_bytes(b"123")
    first = fingerprint(folder)
    (folder / "X" / "0").write_bytes(b"124")
    second = fingerprint(folder)
    (folder / "X" / "0").rename(folder / "X" / "1")
    assert len({first, second, fingerprint(folder)}) == 3
    with pytest.raises(UserError, match="cannot be read"):
        fingerprint(tmp_path / "gone")
