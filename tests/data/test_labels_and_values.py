"""Columns in every encoding, what the values are, which column names the perturbation."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.data import builders
from vcell.data import by_gene, detect, labels, open_cells
from vcell.errors import UserError

TABLE = builders.counts(60, 30, density=0.5)


# --- columns


@pytest.fixture(params=["h5ad", "zarr 2", "zarr 3", "memory"])
def opened(request, tmp_path):
    import warnings

    adata = builders.annotated(TABLE)
    kind, cells = request.param, adata
    if kind == "h5ad":
        cells = tmp_path / "c.h5ad"
        adata.write_h5ad(cells)
    elif kind.startswith("zarr"):
        cells = tmp_path / "c.zarr"
        with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=int(kind[-1])):
            warnings.simplefilter("ignore")
            adata.write_zarr(cells)
    with open_cells(cells) as source:
        yield source, adata


def test_columns_come_with_values_codes_and_categories(opened):
    source, adata = opened
    assert source.obs_columns == list(adata.obs.columns)
    gene = source.obs("target_gene")
    assert gene.kind == "categorical"
    assert gene.categories.tolist() == ["non-targeting", "TP53", "Ünïcode"]
    assert gene.codes.dtype == np.int32
    assert gene.values.tolist() == adata.obs["target_gene"].tolist()
    assert gene.counts().tolist() == [20, 20, 20]
    batch = source.obs("batch")
    assert batch.codes.tolist() == [i % 5 - 1 for i in range(60)]
    assert batch.values[0] is None
    plain = source.obs("plain")
    assert plain.values.tolist() == adata.obs["plain"].tolist()
    assert plain.categories.tolist() == [f"text {i}" for i in range(7)]
    assert plain.categories[plain.codes].tolist() == plain.values.tolist()


def test_numbers_and_booleans_keep_their_types_and_gaps(opened):
    source, adata = opened
    assert source.obs("score").values.dtype == np.float32
    assert np.array_equal(source.obs("n").values, np.arange(60))
    flag = source.obs("flag")
    assert (flag.kind, flag.values.dtype) == ("bool", np.dtype(bool))
    number = source.obs("maybe_n")
    assert (number.kind, int(np.isnan(number.values).sum())) == ("number", 15)
    assert number.codes[0] == -1
    assert number.values[1] == 1
    maybe = source.obs("maybe")
    assert maybe.kind == "bool"
    assert maybe.values[:3].tolist() == [None, False, True]
    assert maybe.categories.tolist() == ["False", "True"]
    assert source.var("id").values[2] == "ENSG2"
    del adata


def test_an_unknown_column_lists_those_there_are(opened):
    source, _ = opened
    with pytest.raises(
        UserError, match=r"no column 'target_gen' \(did you mean target_gene\?\)"
    ) as e:
        source.obs("target_gen")
    assert "batch, plain, score" in (e.value.hint or "")


def test_names_stored_as_nullable_strings_are_read(tmp_path):
    """anndata 0.13 writes the index as a group with values and a mask."""
    path = tmp_path / "c.h5ad"
    builders.annotated(TABLE).write_h5ad(path)
    with h5py.File(path, "a") as file:
        for frame, prefix in (("obs", "cell "), ("var", "Gene")):
            n = len(file[frame]["_index"])
            del file[frame]["_index"]
            group = file[frame].create_group("_index")
            group.attrs["encoding-type"] = "nullable-string-array"
            names = np.array([f"{prefix}{i}" for i in range(n)], dtype=object)
            group.create_dataset("values", data=names, dtype=h5py.string_dtype())
            group["mask"] = np.zeros(n, bool)
    with open_cells(path) as source:
        assert source.genes[29] == "Gene29"
        assert source.cells[59] == "cell 59"
        assert np.array_equal(np.concatenate([b.toarray() for b in source.chunks()]), TABLE)


def test_files_of_anndata_0_7_are_read(tmp_path):
    """Codes with a reference to categories that lie in ``__categories``."""
    path = tmp_path / "c.h5ad"
    builders.annotated(TABLE).write_h5ad(path)
    with h5py.File(path, "a") as file:
        obs = file["obs"]
        codes, listed = obs["batch/codes"][...], obs["batch/categories"][...]
        del obs["batch"]
        held = obs.create_dataset("__categories/batch", data=listed, dtype=h5py.string_dtype())
        obs.create_dataset("batch", data=codes).attrs["categories"] = held.ref
        obs.attrs["encoding-version"] = "0.1.0"
        obs["index"] = obs["_index"][...]
        del obs["_index"]
        del obs.attrs["_index"]
    with open_cells(path) as source:
        assert source.obs("batch").categories.tolist() == ["a", "b", "c", "d"]
        assert source.obs("batch").codes[:3].tolist() == [-1, 0, 1]
        assert "__categories" not in source.obs_columns
        assert source.cells[1] == "cell 1"


def test_files_of_anndata_0_6_are_read(tmp_path):
    """obs and var as arrays of records, categories in uns, the sparse format noted otherwise."""
    path = tmp_path / "c.h5ad"
    csr = sp.csr_matrix(TABLE)
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs.update({"h5sparse_format": b"csr", "h5sparse_shape": TABLE.shape})
        for name in ("data", "indices", "indptr"):
            x[name] = getattr(csr, name)
        obs = np.zeros(60, [("index", "S8"), ("batch", "i1"), ("n", "f4")])
        obs["index"], obs["batch"] = [f"cell {i}" for i in range(60)], np.arange(60) % 2
        file["obs"] = obs
        file["var"] = np.array([(f"Gene{i}",) for i in range(30)], [("index", "S8")])
        file["uns/batch_categories"] = np.array([b"x", b"y"])
    with open_cells(path) as source:
        assert np.array_equal(np.concatenate([b.toarray() for b in source.chunks()]), TABLE)
        assert source.obs_columns == ["batch", "n"]
        assert source.obs("batch").values[:3].tolist() == ["x", "y", "x"]
        assert source.cells[7] == "cell 7"
        assert source.genes[29] == "Gene29"


# --- several files as one


def test_files_with_the_same_genes_in_any_order_are_one(tmp_path):
    left, right = builders.annotated(TABLE[:25]), builders.annotated(TABLE[25:])
    turned = right[:, ::-1].copy()
    turned.obs["only here"] = np.arange(35.0)
    turned.obs["batch"] = pd.Categorical(["late"] * 35)
    left.write_h5ad(tmp_path / "a.h5ad")
    turned.write_h5ad(tmp_path / "b.h5ad")
    for cells in (tmp_path, [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]):
        with open_cells(cells) as source:
            for max_nnz in (40, 10**6):
                got = np.concatenate([b.toarray() for b in source.chunks(max_nnz=max_nnz)])
                assert np.array_equal(got, TABLE)
            rows, genes = np.array([0, 24, 25, 59]), np.array([7, 2, 29])
            got = np.concatenate([b.toarray() for b in source.chunks(rows, genes)])
            assert np.array_equal(got, TABLE[rows][:, genes])
            blocks = list(source.chunks())
            assert np.concatenate([b.rows for b in blocks]).tolist() == list(range(60))
            assert source.obs("target_gene").counts().sum() == 60
            assert source.obs("batch").values[30] == "late"
            assert np.isnan(source.obs("only here").values[:25]).all()
            assert source.cells[25] == "cell 0"


def test_files_with_other_genes_are_joined_only_when_asked(tmp_path):
    a, b = builders.annotated(TABLE[:25, :20]), builders.annotated(TABLE[25:])
    b = b[:, 10:].copy()
    a.write_h5ad(tmp_path / "a.h5ad")
    b.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(UserError, match="20 are in only one of them") as caught:
        open_cells(tmp_path)
    assert "--join inner keeps the 10 genes" in (caught.value.hint or "")
    with open_cells(tmp_path, join="inner") as source:
        assert source.genes.tolist() == [f"Gene{i}" for i in range(10, 20)]
        got = np.concatenate([x.toarray() for x in source.chunks()])
        assert np.array_equal(got, TABLE[:, 10:20])
    with open_cells(tmp_path, join="outer") as source:
        expected = TABLE.copy()
        expected[:25, 20:], expected[25:, :10] = 0, 0
        assert np.array_equal(np.concatenate([x.toarray() for x in source.chunks()]), expected)
        genes = np.array([25, 3, 15])
        got = np.concatenate([x.toarray() for x in source.chunks(genes=genes)])
        assert np.array_equal(got, expected[:, genes])


# --- what the values are


def _log1p(table: np.ndarray, target: float | None = 1e4) -> np.ndarray:
    if target is None:
        return np.log1p(table)
    total = np.maximum(table.sum(axis=1, keepdims=True), 1)
    return np.log1p(table / total * target).astype(np.float32)


CASES = {
    "counts": (TABLE, "counts", None),
    "log1p to 1e4": (_log1p(TABLE), "log1p", 1e4),
    "log1p to 1e6": (_log1p(TABLE, 1e6), "log1p", 1e6),
    "log1p of counts": (_log1p(TABLE, None), "log1p", None),
    "log1p, genes dropped": (_log1p(TABLE)[:, :17], "log1p", None),
    "normalised": (np.expm1(_log1p(TABLE)), "normalised", 1e4),
    "scaled": (TABLE - TABLE.mean(axis=0), "other", None),
    "large fractions": (TABLE * 10.37, "normalised", None),
    "small fractions": (np.random.default_rng(0).random(TABLE.shape), "other", None),
    "nothing": (np.zeros_like(TABLE), "empty", None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray])
def test_the_scale_of_values_is_found_and_said(case, form, capsys):
    table, kind, target = CASES[case]
    adata = builders.annotated(table.astype(np.float32), form)
    found = detect.scale(open_cells(adata))
    assert found.kind == kind
    assert (found.target_sum is None) == (target is None)
    if target:
        assert found.target_sum == pytest.approx(target, rel=1e-3)
    assert found.text in capsys.readouterr().err


def test_counts_are_required_with_a_way_out(tmp_path):
    adata = builders.annotated(_log1p(TABLE))
    adata.layers["counts"] = sp.csr_matrix(TABLE)
    with pytest.raises(UserError, match="raw counts are needed") as caught:
        detect.require_counts(open_cells(adata))
    assert "--layer counts" in (caught.value.hint or "")
    assert detect.require_counts(open_cells(adata, "counts")).kind == "counts"


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_layer_is_suggested_only_where_it_holds_the_right_values(tmp_path, files):
    adata = builders.annotated(_log1p(TABLE))
    adata.raw = adata
    adata.layers["logs"] = adata.X

    def hint() -> str:
        for i in range(files):
            adata.write_h5ad(tmp_path / f"{i}.h5ad")
        cells = [tmp_path / f"{i}.h5ad" for i in range(files)] or adata
        with pytest.raises(UserError) as caught, open_cells(cells) as source:
            detect.require_counts(source, quiet=True)
        return caught.value.hint or ""

    assert hint() == "use the file as it was before normalisation"
    adata.layers["spliced"] = sp.csr_matrix(TABLE)
    assert hint().startswith("layer spliced holds raw counts (whole numbers")
    assert hint().endswith(": try --layer spliced")


def test_only_a_sample_is_read_to_find_the_scale(tmp_path, monkeypatch):
    table = builders.counts(4000, 20)
    source = open_cells(builders.annotated(table))
    rows = detect.sample_rows(source.n_cells, source.nnz, source.n_genes)
    assert len(rows) <= detect.SAMPLE_CELLS
    assert rows[0] == 0
    assert rows[-1] == 3999  # spread from the first cell to the last
    monkeypatch.setattr(detect, "SAMPLE_NNZ", 2000)
    assert len(detect.sample_rows(source.n_cells, source.nnz, source.n_genes)) < 500


def test_a_large_matrix_stored_by_gene_is_judged_without_turning_it(tmp_path, monkeypatch):
    monkeypatch.setattr(by_gene, "IN_MEMORY", 10)
    builders.annotated(TABLE, sp.csc_matrix).write_h5ad(tmp_path / "c.h5ad")
    with open_cells(tmp_path / "c.h5ad") as source:
        assert detect.scale(source, quiet=True).kind == "counts"
        assert source.matrix.needs_pass  # still not transposed


# --- labels


def _source(**columns: list[str]):
    n = len(next(iter(columns.values())))
    obs = pd.DataFrame(columns, index=[str(i) for i in range(n)], dtype="category")
    return open_cells(anndata.AnnData(sp.csr_matrix((n, 2), dtype=np.float32), obs))


@pytest.mark.parametrize(
    ("column", "control"),
    [("target_gene", "non-targeting"), ("gene", "NT"), ("perturbation", "control"),
     ("condition", "ctrl"), ("Perturbation", "Non_Targeting"), ("guide_target", "NTC")],
)  # fmt: skip
def test_the_perturbation_column_and_its_controls_are_found_and_said(column, control, capsys):
    source = _source(**{column: [control, "TP53", "KRAS", control], "batch": ["a", "b", "a", "b"]})
    found = labels.find(source)
    assert (found.perturbation_column, found.control) == (column, control)
    assert (found.n_controls, found.n_perturbations, found.batch_column) == (2, 2, "batch")
    said = capsys.readouterr().err
    assert column in said
    assert control in said


def test_two_columns_that_mean_the_same_are_no_question():
    source = _source(condition=["ctrl", "A", "B"], perturbation=["control", "a", "b"])
    assert labels.find(source).perturbation_column == "perturbation"


def test_two_different_columns_are_a_question():
    source = _source(gene=["NT", "A", "B", "B"], treatment=["dmso", "x", "x", "dmso"])
    with pytest.raises(UserError, match="several obs columns") as caught:
        labels.find(source)
    assert "--perturbation-column gene" in (caught.value.hint or "")
    options = labels.NoOptions(perturbation_column="treatment")
    assert labels.find(source, options).control == "dmso"
    assert labels.find(source, labels.NoOptions(control="NT")).perturbation_column == "gene"


def test_two_control_labels_are_a_question():
    source = _source(gene=["NT", "control", "B"])
    with pytest.raises(
        UserError, match="several labels that could be the control: 'control', 'NT'"
    ):
        labels.find(source)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"perturbation_column": "gone"}, "no column 'gone'"),
     ({"control": "ntx"}, r"no cell labelled 'ntx' \(did you mean NT\?\)"),
     ({"batch_column": "gone"}, "no column 'gone'")],
)  # fmt: skip
def test_wrong_options_are_named(options, said):
    with pytest.raises(UserError, match=said):
        labels.find(_source(gene=["NT", "A", "B"]), labels.NoOptions(**options))


def test_no_control_and_no_column_say_what_there_is():
    with pytest.raises(UserError, match="known to mean control") as caught:
        labels.find(_source(gene=["A", "B"]))
    assert "'A', 'B'" in (caught.value.hint or "")
    with pytest.raises(UserError, match="no obs column has a name") as caught:
        labels.find(_source(louvain=["A", "B"]))
    assert "louvain" in (caught.value.hint or "")


# --- real data


def test_real_files_agree_with_anndata(shared_data: Path):
    files = sorted(shared_data.rglob("*.h5ad"))
    assert len(files) >= 4
    for path in files:
        adata = anndata.read_h5ad(path)
        matrices = [(None, adata.X)] + ([("raw", adata.raw.X)] if adata.raw else [])
        for layer, x in matrices:
            table = x.toarray() if sp.issparse(x) else x
            with open_cells(path, layer) as source:
                blocks = list(source.chunks(max_nnz=50_000, dtype="stored"))
                assert np.array_equal(np.concatenate([b.toarray() for b in blocks]), table)
                for name in source.obs_columns:
                    column, expected = source.obs(name), adata.obs[name].to_numpy()
                    if column.kind == "number":
                        assert np.array_equal(column.values, expected)
                    else:
                        assert [str(v) for v in column.values] == [str(v) for v in expected]


@pytest.mark.parametrize(
    ("name", "kind", "column", "control", "n"),
    [("vcc25/H1-VCC-2025-training_600x1000.h5ad", "counts", "target_gene", "non-targeting", 5),
     ("norman19_mcfaline23_devel/devel.h5ad", "log1p", "perturbation", "control", 33)],
)  # fmt: skip
def test_real_screens_are_understood(name, kind, column, control, n, shared_data):
    with open_cells(shared_data / name) as source:
        assert detect.scale(source).kind == kind
        found = labels.find(source)
    assert (found.perturbation_column, found.control, found.n_perturbations) == (column, control, n)


@pytest.mark.parametrize("nnz_per_cell", [None, 0, 3, 300, 5000, 40_000])
def test_sampled_cells_ascend_once_each(nnz_per_cell):
    for n in (*range(1, 200), *range(1000, 1200), 123_457, 10**9):
        nnz = None if nnz_per_cell is None else n * nnz_per_cell
        rows = detect.sample_rows(n, nnz, 20_000)
        assert (np.diff(rows) > 0).all()
        assert rows[0] == 0
        assert rows[-1] == n - 1 or len(rows) == 1
