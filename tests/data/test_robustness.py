"""What is wrong with a file is one clear line; what can be mended is read; nothing crashes."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import builders
from vcell.data import CellWriter, detect, labels, open_cells
from vcell.data.arrays import PlainArray
from vcell.data.block import Csr, canonical
from vcell.errors import UserError

TABLE = builders.counts()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    builders.annotated(TABLE).write_h5ad(path, compression="gzip")
    return path


def _damage(path: Path, what: Any) -> None:
    with h5py.File(path, "a") as file:
        what(file)


def _set(name: str, values: Any) -> Any:
    def change(file: h5py.File) -> None:
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values).attrs.update(attrs)

    return change


def _change(name: str, at: int, value: Any) -> Any:
    def change(file: h5py.File) -> None:
        file[name][at] = value

    return change


def _delete(name: str) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def _attr(name: str, key: str, value: Any) -> Any:
    def change(file: h5py.File) -> None:
        file[name].attrs[key] = value

    return change


N = int(np.count_nonzero(TABLE))

DAMAGES = {
    "no X": (_delete("X"), "has no X"),
    "no var": (_delete("var"), "holds no cells"),
    "no data": (_delete("X/data"), "X has no 'data' (it has indices, indptr)"),
    "no indptr": (_delete("X/indptr"), "has no 'indptr'"),
    "no names": (_delete("obs/_index"), "has no '_index'"),
    "no codes": (_delete("obs/batch/codes"), "has no 'codes'"),
    "a group for an array": (
        lambda f: (f["X"].move("data", "old"), f["X"].create_group("data")),
        "X/data: is a group where an array is expected",
    ),
    "column too high": (_change("X/indices", 5, 23), "has an entry 23, outside 0 to 22"),
    "column negative": (_change("X/indices", 5, -1), "has an entry -1, outside 0 to 22"),
    "indptr descends": (_change("X/indptr", 5, 10**6), "does not ascend"),
    "indptr too short": (_set("X/indptr", np.zeros(3, np.int64)), "has 3 entries where 58"),
    "indptr of floats": (_set("X/indptr", np.zeros(58)), "is of type float64, not whole numbers"),
    "data too short": (_set("X/data", np.ones(7, "f4")), f"where indptr promises {N:,}"),
    "data of text": (_set("X/data", ["a"] * N), "not numbers"),
    "data 2-D": (_set("X/data", np.ones((N, 2), "f4")), f"has {N} x 2 values"),
    "no shape": (lambda f: f["X"].attrs.pop("shape"), "has no usable shape"),
    "shape negative": (_attr("X", "shape", [-1, 23]), "has no usable shape"),
    "shape huge": (_attr("X", "shape", [2**40, 23]), "has no usable shape"),
    "shape other": (
        _attr("X", "shape", [58, 23]),
        "has 58 entries where 59 are needed|has 57 rows",
    ),
    "unknown kind": (_attr("X", "encoding-type", "coo_matrix"), "does not know (coo_matrix)"),
    "code without category": (_change("obs/batch/codes", 3, 77), "has codes that none of its 4"),
    "column too short": (_set("obs/n", np.arange(3)), "has 3 values where 57 are expected"),
    "mask too short": (_set("obs/maybe/mask", np.zeros(3, bool)), "a mask of 3"),
    "index 2-D": (_set("var/_index", [["a"]] * 23), "has 2 dimensions where 1"),
    "obs is an array": (_set("obs", np.zeros(3)), "neither a dataframe nor"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_clear_line(name, path):
    change, said = DAMAGES[name]
    _damage(path, change)
    with pytest.raises(UserError) as caught:
        builders.use(path)
    assert any(part in caught.value.message for part in said.split("|")), caught.value.message
    assert "cells.h5ad" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_line(share, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"cells\.h5ad"):
        builders.use(path)


def test_a_file_cut_while_it_is_open_is_one_clear_line(tmp_path):
    """An uncompressed file loses its end between opening and reading."""
    path = tmp_path / "cells.h5ad"
    builders.annotated(TABLE).write_h5ad(path)
    with h5py.File(path, "a") as file:
        values = file["X/data"][...]
        del file["X/data"]
        file.create_dataset("X/data", data=values)  # in one piece
        offset = file["X/data"].id.get_offset()
    with open_cells(path) as source:
        with path.open("r+b") as file:
            file.truncate(offset + 8)
        with pytest.raises(UserError, match="the file ends"):
            list(source.chunks())


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"hello, I am text", "does not begin like HDF5"),
     (b"\x89HDF\r\n\x1a\n", "cannot be read"),
     (b"\x89HDF\r\n\x1a\n" + bytes(500), "cannot be read")],
)  # fmt: skip
def test_what_is_no_file_of_cells_is_refused(content, said, tmp_path):
    path = tmp_path / "cells.h5ad"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        open_cells(path)


def test_links_to_nowhere_and_pipes_are_named(tmp_path):
    (tmp_path / "lost.h5ad").symlink_to(tmp_path / "gone.h5ad")
    (tmp_path / "round.h5ad").symlink_to(tmp_path / "round.h5ad")
    for name in ("lost", "round"):
        with pytest.raises(UserError, match=rf"{name}.h5ad is a link to .*leads to no file"):
            open_cells(tmp_path / f"{name}.h5ad")
    os.mkfifo(tmp_path / "pipe.h5ad")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        open_cells(tmp_path / "pipe.h5ad")


def test_paths_that_lead_nowhere_are_named(tmp_path, path):
    with pytest.raises(UserError, match="does not exist") as caught:
        open_cells(tmp_path / "cell.h5ad")
    assert "did you mean" in (caught.value.hint or "")
    with pytest.raises(UserError, match="does not exist") as caught:
        open_cells(tmp_path / "no" / "where.h5ad")
    assert "there is no folder" in (caught.value.hint or "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no cells"):
        open_cells(tmp_path / "empty")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["stuff"] = 1
    with pytest.raises(UserError, match="only stuff"):
        open_cells(tmp_path / "other.h5")


def test_a_zarr_folder_with_a_missing_part_is_one_clear_line(tmp_path):
    path = tmp_path / "cells.zarr"
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=3):
        warnings.simplefilter("ignore")
        builders.annotated(TABLE).write_zarr(path)
    shutil.rmtree(path / "X" / "indices")
    with pytest.raises(UserError, match="X has no 'indices'"):
        open_cells(path)
    shutil.rmtree(path / "obs")
    with pytest.raises(UserError, match="lacks obs or var"):
        open_cells(path)


# --- what can be mended


def _stored(tmp_path: Path, csr: Any, n_genes: int) -> Path:
    """Write the three arrays just as they are."""
    path = tmp_path / "odd.h5ad"
    n = len(csr[2]) - 1
    builders.annotated(np.zeros((n, n_genes), np.float32)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name, values in zip(("data", "indices", "indptr"), csr, strict=True):
            del file["X"][name]
            file["X"][name] = values
    return path


def test_unsorted_repeated_and_zero_entries_are_mended(tmp_path):
    data = np.array([1, 2, 3, 0, 4, 5, -4, 6], np.float32)
    indices = np.array([4, 1, 2, 0, 3, 3, 3, 0], np.int32)
    indptr = np.array([0, 3, 4, 7, 8], np.int64)
    path = _stored(tmp_path, (data, indices, indptr), 5)
    expected = sp.csr_matrix((data, indices, indptr), shape=(4, 5)).toarray()
    for max_nnz in (1, 100):
        with open_cells(path) as source:
            blocks = list(source.chunks(max_nnz=max_nnz))
        assert np.array_equal(np.concatenate([b.toarray() for b in blocks]), expected)
        assert all(b.tocsr().has_canonical_format and (b.data != 0).all() for b in blocks)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_csr_becomes_canonical_as_scipy_says(seed):
    rng = np.random.default_rng(seed)
    rows, genes = rng.integers(0, 6), rng.integers(1, 8)
    lengths = rng.integers(0, 9, rows)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = rng.integers(0, genes, indptr[-1]).astype(np.int32)
    data = rng.integers(-2, 3, indptr[-1]).astype(np.float32)
    got = canonical(Csr(indptr, indices, data), int(genes))
    expected = sp.csr_matrix((data, indices, indptr), shape=(rows, genes))
    expected.sum_duplicates()
    expected.eliminate_zeros()
    assert np.array_equal(got.indptr, expected.indptr)
    assert np.array_equal(got.indices, expected.indices)
    assert np.array_equal(got.data, expected.data)


def test_nan_and_negative_values_come_through_and_are_seen(tmp_path):
    table = TABLE.copy()
    table[3, 4], table[5, 6] = np.nan, -7
    for form in (sp.csr_matrix, np.asarray):
        path = tmp_path / "cells.h5ad"
        builders.annotated(table, form).write_h5ad(path)
        assert np.array_equal(builders.use(path), table, equal_nan=True)
        with open_cells(path) as source:
            assert "NaN" in detect.scale(source, quiet=True).evidence
            with pytest.raises(UserError, match="raw counts are needed"):
                detect.require_counts(source, quiet=True)


# --- shapes at the edge


@pytest.mark.parametrize("shape", [(0, 23), (57, 0), (0, 0), (57, 1), (1, 1), (3, 70_000)])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_any_shape_is_read(shape, form, tmp_path):
    rng = np.random.default_rng(0)
    table = (rng.random(shape) < 0.2).astype(np.float32)
    path = tmp_path / "cells.h5ad"
    index = [
        pd.Index([f"{a}{i}" for i in range(n)], dtype=object)
        for a, n in zip("cg", shape, strict=True)
    ]
    adata = anndata.AnnData(form(table), pd.DataFrame(index=index[0]), pd.DataFrame(index=index[1]))
    adata.write_h5ad(path)
    for cells in (path, adata):
        with open_cells(cells) as source:
            assert (source.n_cells, source.n_genes) == shape
            blocks = [b.toarray() for b in source.chunks()]
            assert np.array_equal(np.concatenate(blocks) if blocks else np.zeros(shape), table)
            if shape[1] > 65_536:
                genes = np.array([69_999, 65_536, 0])
                got = np.concatenate([b.toarray() for b in source.chunks(genes=genes)])
                assert np.array_equal(got, table[:, genes])
            kind = detect.scale(source, quiet=True).kind
            assert kind == ("counts" if table.any() else "empty")
            with pytest.raises(UserError, match="no obs column"):
                labels.find(source)


def test_repeated_and_non_ascii_names_are_kept(tmp_path):
    adata = builders.annotated(TABLE[:3, :4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata warns of repeated names
        adata.var_names = ["Gène", "遺伝子", "a", "a"]
        adata.obs_names = ["é", "é", "x"]
        adata.write_h5ad(tmp_path / "c.h5ad")
    with open_cells(tmp_path / "c.h5ad") as source:
        assert source.genes.tolist() == ["Gène", "遺伝子", "a", "a"]
        assert source.cells.tolist() == ["é", "é", "x"]


def test_the_writer_refuses_what_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"written as \.h5ad"):
        CellWriter(tmp_path / "c.txt", ["a"])
    with pytest.raises(UserError, match="is not a folder"):
        CellWriter(tmp_path / "no" / "c.h5ad", ["a"])


def test_plain_arrays_refuse_what_ends_early():
    class Short:
        shape, dtype, chunks = (10,), np.dtype(np.float32), None

        def __getitem__(self, key: slice) -> np.ndarray:
            return np.zeros(2, np.float32)

    [task] = PlainArray(Short(), "short").tasks(np.array([0]), np.array([5]), np.zeros(5, "f4"))
    with pytest.raises(UserError, match="ends before element 5"):
        task()


def test_names_in_a_10x_folder_are_whole(tmp_path):
    builders.write_mtx(tmp_path / "out", TABLE[:4, :5], zipped=False)
    path = tmp_path / "out" / "barcodes.tsv"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with open_cells(tmp_path / "out") as source:
        assert list(source.cells[:]) == text.splitlines()
    path.write_text(text.replace(text.splitlines()[1], " "))
    with pytest.raises(UserError, match=r"barcodes.tsv, line 2: is blank"):
        builders.use(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda t: t.replace("%%MatrixMarket matrix", "%%Something"), "not a MatrixMarket"),
     (lambda t: t.replace("\n5 4 ", "\n6 4 "), "of 6 genes and 4 cells"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n", "entries where its head says"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n99 1 1\n", "gene number outside 1 to 5"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n1 x 1\n", "matrix.mtx cannot be read"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n1\n", "matrix.mtx cannot be read"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n1 1\n", "no whole numbers"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n1 1 2.5\n", "no whole numbers"),
     (lambda t: t.rsplit("\n", 2)[0] + "\n1 1 3000000000\n", "no whole numbers"),
     (lambda t: t.replace(" integer ", " complex "), "its head says 'complex general'"),
     (lambda t: t.replace(" general", " symmetric"), "its head says 'integer symmetric'")],
)  # fmt: skip
def test_a_damaged_10x_folder_is_one_clear_line(change, said, tmp_path):
    builders.write_mtx(tmp_path / "out", TABLE[:4, :5], zipped=False)
    path = tmp_path / "out" / "matrix.mtx"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=said):
        builders.use(tmp_path / "out")
    path.unlink()
    (tmp_path / "out" / "matrix.mtx.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        builders.use(tmp_path / "out")
