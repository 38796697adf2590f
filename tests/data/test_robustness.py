"""What is wrong with a file is one clear line; what can be mended is read; nothing crashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import builders
from tests.support import PATIENCE, clean_environment
from vcell.data import CellWriter, detect, labels, open_cells
from vcell.data.arrays import PlainArray
from vcell.data.block import Csr, canonical
from vcell.data.chunked import _pieces
from vcell.data.matrix import Bound, CsrMatrix, Layout, cut_by_size
from vcell.errors import UserError

TABLE = builders.counts()
LAYOUT = Layout("csr", "none", None, "int32", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    builders.annotated(TABLE).write_h5ad(path, compression="gzip")
    return path


def _use(path: Any, layer: str | None = None) -> np.ndarray:
    """Open and read everything that a command could."""
    with open_cells(path, layer) as source:
        dense = [block.toarray() for block in source.chunks(max_nnz=100)]
        for name in source.obs_columns:
            column = source.obs(name)
            _ = column.values, column.codes, column.categories
        _ = source.cells, source.genes
        for name in source.var_columns:
            source.var(name)
        return np.concatenate(dense) if dense else np.zeros((0, source.n_genes))


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
        _use(path)
    assert any(part in caught.value.message for part in said.split("|")), caught.value.message
    assert "cells.h5ad" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_line(share, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"cells\.h5ad"):
        _use(path)


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
        assert np.array_equal(_use(path), table, equal_nan=True)
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


# --- more than 2^31 non-zeros: the arithmetic, without the bytes


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


# --- fuzz: whatever the bytes, a UserError or a result

_FUZZ = """
import os, random, signal, sys, warnings
from pathlib import Path
import h5py
sys.path.insert(0, {root!r})
from tests.data.test_robustness import _use
from vcell.errors import UserError
warnings.simplefilter("ignore")
source, target, seed, rounds = Path({source!r}), Path({target!r}), {seed}, {rounds}

def plainly():
    "What h5py makes of the file: the control for crashes of HDF5 itself."
    def visit(name, node):
        list(node.attrs.items())
        if isinstance(node, h5py.Dataset):
            node[...]
    with h5py.File(target) as file:
        file.attrs.items()
        file.visititems(visit)

def alone(call, accepted):
    "Run a call in a process of its own; return how it ended."
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, 4)  # seconds of CPU; kills even inside C
        try:
            call()
            os._exit(0)
        except accepted:
            os._exit(3)
        except BaseException as error:
            import traceback
            traceback.print_exc()
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

good = source.read_bytes()
chance = random.Random(seed)
refused = hdf5 = 0
for round in range(rounds):
    bad = bytearray(good)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        bad[chance.randrange(len(bad))] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
    if chance.random() < 0.1:
        del bad[chance.randrange(len(bad)):]
    target.write_bytes(bad)
    end = alone(lambda: _use(target), (UserError, MemoryError))
    refused += end == 3
    if end < 0:
        assert alone(plainly, Exception) < 0, f"round {{round}}: signal {{-end}}, not so h5py"
        hdf5 += 1
    else:
        assert end in (0, 3), f"round {{round}} ended with {{end}}"
print("died in HDF5 itself", hdf5, "refused", refused)
"""


def _fuzz(source: Path, target: Path, seed: int, rounds: int) -> None:
    """Flip bytes and read, each time in a process of its own.

    Damaged bytes make the HDF5 library itself loop or crash now and then; such a round counts as
    passed only if plain h5py dies of the same file as well.
    """
    root = str(Path(__file__).resolve().parents[2])
    code = _FUZZ.format(root=root, source=str(source), target=str(target), seed=seed, rounds=rounds)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE,
        env=clean_environment(), cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-200:]}\n{done.stderr[-3000:]}"
    assert int(done.stdout.split()[-1]) > 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["csr", "dense", "10x"])
def test_flipped_bytes_never_crash(form, seed, tmp_path):
    source = tmp_path / "good.h5ad"
    small = TABLE[:9, :7]
    if form == "10x":
        builders.write_tenx_h5(source, small)
    else:
        adata = builders.annotated(small, sp.csr_matrix if form == "csr" else np.asarray)
        adata.obs = adata.obs[["target_gene", "plain", "maybe"]]
        adata.write_h5ad(source, compression="gzip")
    _fuzz(source, tmp_path / "bad.h5ad", seed, 400 if seed else 25)


@given(st.binary(max_size=300), st.sampled_from(["matrix.mtx", "barcodes.tsv", "features.tsv"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_in_a_10x_folder_never_crash(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("mtx") / "out"
    builders.write_mtx(folder, TABLE[:4, :5], zipped=False)
    (folder / name).write_bytes(content)
    with suppress(UserError):
        _use(folder)


@pytest.mark.parametrize("version", [2, 3])
def test_flipped_bytes_in_zarr_never_crash(version, tmp_path):
    good, bad = tmp_path / "good.zarr", tmp_path / "bad.zarr"
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=version):
        warnings.simplefilter("ignore")
        adata = builders.annotated(TABLE[:9, :7])
        adata.obs = adata.obs[["target_gene", "maybe"]]
        adata.write_zarr(good)
    files = sorted(p for p in good.rglob("*") if p.is_file() and p.stat().st_size)
    rng, refused = np.random.default_rng(version), 0
    shutil.copytree(good, bad)
    for _ in range(60):
        victim = bad / files[rng.integers(len(files))].relative_to(good)
        whole = victim.read_bytes()
        content = bytearray(whole)
        content[rng.integers(len(content))] = rng.integers(256)
        victim.write_bytes(content)
        try:
            _use(bad)
        except (UserError, MemoryError):
            refused += 1
        victim.write_bytes(whole)
    assert refused


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
        _use(tmp_path / "out")


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
        _use(tmp_path / "out")
    path.unlink()
    (tmp_path / "out" / "matrix.mtx.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        _use(tmp_path / "out")
