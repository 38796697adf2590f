"""`vcell inspect` as a user runs it."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from tests.data import builders

TABLE = builders.counts(60, 30, density=0.5)


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.h5ad"
    adata = builders.annotated(TABLE)
    adata.var_names = [f"MT-{i}" if i < 2 else f"Gene{i}" for i in range(30)]
    adata.write_h5ad(path, compression="gzip")
    return path


def test_it_describes_the_contents_of_the_file(vcell, cells):
    ran = vcell("inspect", cells, "--json")
    assert ran.code == 0, ran.err
    report = ran.json
    assert (report["n_cells"], report["n_genes"]) == (60, 30)
    assert report["nnz"] == np.count_nonzero(TABLE)
    assert report["density"] == pytest.approx(np.count_nonzero(TABLE) / TABLE.size)
    assert (report["stored"], report["dtype"], report["compression"]) == (
        "csr",
        "float32",
        "gzip 4",
    )
    assert report["values"]["kind"] == "counts"
    assert report["labels"]["perturbation_column"] == "target_gene"
    assert report["labels"]["control"] == "non-targeting"
    columns = {entry["name"]: entry for entry in report["obs"]}
    assert columns["batch"]["n_categories"] == 4
    assert columns["batch"]["missing"] == 12
    assert columns["score"]["range"] == [0, 1]
    totals = TABLE.sum(axis=1)
    assert report["qc"]["median_total"] == np.median(totals)
    assert report["qc"]["median_genes"] == np.median((TABLE > 0).sum(axis=1))
    mito = 100 * TABLE[:, :2].sum(axis=1) / np.maximum(totals, 1)
    assert report["qc"]["median_mito_percent"] == pytest.approx(np.median(mito))
    assert any("1 cell is empty" in line for line in report["problems"])


def test_the_text_says_the_same_and_goes_to_stdout(vcell, cells):
    ran = vcell("inspect", cells)
    assert ran.code == 0, ran.err
    for part in ("60 x 30", "gzip 4", "raw counts", "'target_gene' (2)", "text 0", "Gene", "empty"):
        assert part in ran.out, part


def test_the_page_is_complete_and_needs_no_network(vcell, cells, tmp_path):
    page = tmp_path / "page.html"
    assert vcell("inspect", cells, "--full", "--html", page).code == 0
    text = page.read_text()
    assert not re.search(r"https?://|<script|@import|url\(", text)
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 6
    for picture in pictures:
        ET.fromstring(picture)
    assert "Ünïcode" in text


def test_names_in_the_page_cannot_break_it(vcell, tmp_path):
    adata = builders.annotated(TABLE)
    adata.obs["<script>alert(1)<script>"] = ["<b>&"] * 60
    adata.var_names = [f"<i>{i}" for i in range(30)]
    adata.write_h5ad(tmp_path / "c.h5ad")
    assert vcell("inspect", tmp_path / "c.h5ad", "--html", tmp_path / "p.html").code == 0
    text = (tmp_path / "p.html").read_text()
    assert "<script" not in text
    assert "<i>" not in text


def _odd(path):
    """A readable file with every kind of problem."""
    table = TABLE.copy()
    table[3, 4], table[5, 6], table[7, 8] = np.nan, -7, 0.5
    adata = builders.annotated(table)
    adata.raw = adata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.var_names = ["same", "same"] + [f"Gene{i}" for i in range(28)]
        adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        a, b = file["X/indptr"][10], file["X/indptr"][11]
        assert b - a > 3
        indices = file["X/indices"][a:b]
        file["X/indices"][a:b] = indices[::-1]
        file["X/indices"][a] = file["X/indices"][a + 1]
        file["X/data"][a + 2] = 0


@pytest.mark.parametrize("full", [[], ["--full"]])
def test_it_finds_all_problems(full, vcell, tmp_path):
    _odd(tmp_path / "odd.h5ad")
    problems = "\n".join(vcell("inspect", tmp_path / "odd.h5ad", "--json", *full).json["problems"])
    for part in (
        "1 gene name occurs more than once: same", "1 value is NaN", "1 value is negative",
        "not whole", "1 cell has unsorted", "1 entry repeats", "1 zero is stored",
        " empty", "raw does not hold raw counts",
    ):  # fmt: skip
        assert part in problems, part
    good = vcell("inspect", tmp_path / "odd.h5ad", "--layer", "raw", "--json").json
    assert good["layer"] == "raw"


def test_a_sample_of_many_cells_and_all_of_them(vcell, tmp_path):
    table = builders.counts(3000, 20)
    table[1500] = 1.5  # between the runs of cells that are sampled
    builders.annotated(table).write_h5ad(tmp_path / "c.h5ad")
    sample = vcell("inspect", tmp_path / "c.h5ad", "--json").json
    assert sample["qc"]["cells_seen"] <= 1024
    full = vcell("inspect", tmp_path / "c.h5ad", "--json", "--full").json
    assert full["qc"]["cells_seen"] == 3000
    assert full["qc"]["median_total"] == np.median(table.sum(axis=1))
    assert sample["values"]["kind"] == "counts"
    assert not any("not whole" in line for line in sample["problems"])
    assert any("20 values are not whole" in line for line in full["problems"])


def test_sums_of_values_other_than_counts_are_not_shown(vcell, tmp_path):
    scaled = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    shown = vcell("inspect", tmp_path / "scaled.h5ad").out
    assert "median of 20 sampled cells: 8 genes" in shown
    assert "summed" not in shown


@pytest.mark.parametrize("make", ["zarr", "csc", "dense", "10x", "mtx", "folder", "empty"])
def test_every_kind_of_input_is_inspected(make, vcell, tmp_path):
    path = tmp_path / "cells.h5ad"
    if make == "10x":
        path = tmp_path / "cells.h5"
        builders.write_tenx_h5(path, TABLE)
    elif make == "mtx":
        path = tmp_path / "out"
        builders.write_mtx(path, TABLE)
    elif make == "zarr":
        path = tmp_path / "cells.zarr"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builders.annotated(TABLE).write_zarr(path)
    elif make == "folder":
        path = tmp_path / "many"
        path.mkdir()
        for i in range(2):
            builders.annotated(TABLE[i * 30 : i * 30 + 30]).write_h5ad(path / f"{i}.h5ad")
    elif make == "empty":
        anndata.AnnData(sp.csr_matrix((0, 0), dtype=np.float32)).write_h5ad(path)
    else:
        form = sp.csc_matrix if make == "csc" else np.asarray
        builders.annotated(TABLE, form).write_h5ad(path)
    ran = vcell("inspect", path, "--json", "--html", tmp_path / "p.html")
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    assert ran.json["n_cells"] == (0 if make == "empty" else 60)
    if make != "empty":
        assert ran.json["qc"]["median_total"] == np.median(TABLE.sum(axis=1))


def test_unreadable_input_is_reported_in_one_line(vcell, tmp_path, cells):
    for words, said in (
        ([], "no cells are named"),
        (["gone.h5ad"], "does not exist"),
        ([cells, "--layer", "gone"], "no layer 'gone'"),
        ([cells, "--html", tmp_path / "no" / "p.html"], "is not a folder"),
    ):
        ran = vcell("inspect", *words)
        assert ran.code == 2, words
        assert said in ran.err
        assert "Traceback" not in ran.err
    cells.write_bytes(cells.read_bytes()[:3000])
    assert vcell("inspect", cells).code == 2


def test_the_cells_default_to_the_projects(vcell, cells, tmp_path):
    (tmp_path / "vcell.toml").write_text('[data]\ncells = "cells.h5ad"\n')
    assert vcell("inspect", "--json").json["n_cells"] == 60


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_stored_embeddings_are_drawn(kind, vcell, tmp_path):
    adata = builders.annotated(TABLE)
    rng = np.random.default_rng(0)
    adata.obsm["X_pca"] = rng.normal(size=(60, 5))
    adata.obsm["X_umap"] = rng.normal(size=(60, 2)).astype(np.float32)
    adata.obsm["one"] = rng.normal(size=(60, 1))  # nothing to draw
    adata.obsm["sparse"] = sp.csr_matrix(rng.normal(size=(60, 3)))
    path = tmp_path / f"cells.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's, of zarr's second format
        (adata.write_h5ad if kind == "h5ad" else adata.write_zarr)(path)
    ran = vcell("inspect", path, "--html", tmp_path / "page.html")
    assert ran.code == 0, ran.err
    text = (tmp_path / "page.html").read_text()
    heads = re.findall(r"<h3>(X_\w+|one|sparse)</h3>", text)
    assert heads == ["X_umap", "X_pca"]
    assert "60 cells, coloured by " in text
