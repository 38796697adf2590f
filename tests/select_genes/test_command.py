"""vcell select-genes as a user runs it."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from vcell_select_genes import SelectGenes
from vcell_select_genes.work import run

from vcell.errors import UserError
from vcell.genes import shipped

CONTROL = "non-targeting"


def rows_of(folder):
    """Read selected_genes.csv."""
    with (folder / "selected_genes.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def screen():
    """A screen in which KLF1 changes ten genes strongly, SPI1 two, and NANOG none."""
    rng = np.random.default_rng(0)
    sets = shipped()
    names = ["KLF1", "SPI1", "NANOG", *sets["cell-cycle"].genes[:20], *sets["tf"].genes[100:140]]
    names += [f"LINC{i:05d}" for i in range(340)]
    names = list(dict.fromkeys(names))
    label = np.repeat([CONTROL, "KLF1", "SPI1", "NANOG", "KLF1+SPI1", "TINY"], [300, *[80] * 4, 4])
    rate = np.tile(np.exp(rng.normal(0.2, 0.8, len(names))), (len(label), 1))
    moved = {"KLF1": range(200, 210), "SPI1": range(210, 212)}
    for gene, targets in moved.items():
        hit = np.array([gene in name.split("+") for name in label])
        rate[np.ix_(hit, list(targets))] *= 4
        rate[hit, names.index(gene)] *= 0.1
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    return anndata.AnnData(
        counts,
        obs=pd.DataFrame(
            {"target_gene": pd.Categorical(label), "batch": np.arange(len(label)) % 2},
            index=np.arange(len(label)).astype(str),
        ),
        var=pd.DataFrame(index=names),
    ), [names[i] for i in range(200, 212)]


@pytest.fixture
def screen_file(screen, tmp_path):
    path = tmp_path / "screen.h5ad"
    screen[0].write_h5ad(path)
    return path


def test_groups_fill_their_quotas_and_the_phases_are_prefixes(vcell, screen, screen_file, tmp_path):
    done = vcell(
        "select-genes", screen_file, "-o", "genes", "--n-genes", 120, "--phases", "30,60,120"
    )
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "genes")
    assert [int(row["rank"]) for row in rows] == list(range(1, 121))
    assert {row["gene"] for row in rows[:3]} == {"KLF1", "NANOG", "SPI1"}  # the targets
    phases = [int(row["phase"]) for row in rows]
    assert phases == [1] * 30 + [2] * 30 + [3] * 60
    responding = {row["gene"] for row in rows[:30] if "responsive" in row["groups"].split("|")}
    assert set(screen[1]) <= responding  # those that truly respond are in the first phase
    report = json.loads((tmp_path / "genes" / "coverage.json").read_text())
    assert report["targets"] == {
        "wanted": 4, "phases": [3, 3, 3], "left_out": [], "not_in_file": ["TINY"],
    }  # fmt: skip
    assert report["responses"]["untested"] == ["TINY"]
    found = {p["perturbation"]: p["responses"] for p in report["responses"]["perturbations"]}
    assert found["KLF1"] >= 10
    assert found["KLF1+SPI1"] >= 12
    assert found["NANOG"] <= 2
    page = (tmp_path / "genes" / "coverage.html").read_text()
    assert page.count("<svg") == 3 + (report["responses"]["n_lost_genes"] >= 0)
    assert "targets chosen: 3 of 4" in done.out


def test_groups_none_is_the_plain_choice(vcell, screen, screen_file, tmp_path):
    from vcell.data import open_cells
    from vcell.hvg import highly_variable

    done = vcell(
        "select-genes", screen_file, "--groups", "none", "--hvg-flavor", "seurat_v3",
        "--n-genes", 50, "-o", "hvg", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["chosen"] == 50
    with open_cells(screen_file) as source:
        ranking = highly_variable(source, flavor="seurat_v3", n_top=50)
        wanted = source.genes[ranking.order[:50]].tolist()
    rows = rows_of(tmp_path / "hvg")
    assert [row["gene"] for row in rows] == wanted
    assert {row["groups"] for row in rows} == {"hvg"}
    assert float(rows[0]["variances_norm"]) == ranking.scores["variances_norm"][ranking.order[0]]


def test_a_users_groups_targets_and_quotas_count(vcell, screen, screen_file, tmp_path):
    (tmp_path / "mine.gmt").write_text("favourites\t-\tLINC00000\tLINC00007\tNOSUCHGENE\n")
    (tmp_path / "challenge.csv").write_text("target_gene,n_cells\nLINC00300,5\nGATA0,5\n")
    done = vcell(
        "select-genes", screen_file, "-o", "genes", "--n-genes", 60, "--phases", 20,
        "--gene-set", tmp_path / "mine.gmt", "--targets", tmp_path / "challenge.csv",
        "--quotas", "tf=12,responsive=10%", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    genes = [row["gene"] for row in rows_of(tmp_path / "genes")]
    assert set(genes[:6]) == {"LINC00300", "KLF1", "NANOG", "SPI1", "LINC00000", "LINC00007"}
    assert done.json["unmatched"]["favourites"] == ["NOSUCHGENE"]
    assert done.json["targets"]["not_in_file"] == ["GATA0", "TINY"]
    held = {row["group"]: row["phases"][-1] for row in done.json["groups"]}
    assert held["tf"] >= 12
    assert held["responsive"] >= 6


def test_dask_writes_the_same_table(vcell, screen_file, tmp_path):
    pytest.importorskip("dask", reason="dask is an extra")
    one = vcell("select-genes", screen_file, "-o", "one", "--n-genes", 80, "--min-cells", 3)
    two = vcell(
        "select-genes", screen_file, "-o", "two", "--n-genes", 80, "--min-cells", 3,
        "--engine", "dask",
    )  # fmt: skip
    assert (one.code, two.code) == (0, 0), two.err
    tables = [(tmp_path / name / "selected_genes.csv").read_bytes() for name in ("one", "two")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("engine", ["local", pytest.param("dask", marks=pytest.mark.slow)])
def test_files_with_other_genes_are_joined_as_asked(vcell, screen, tmp_path, engine):
    if engine == "dask":
        pytest.importorskip("dask", reason="dask is an extra")
    cells, n = screen[0], screen[0].n_vars
    cells[::2, : n - 30].copy().write_h5ad(tmp_path / "a.h5ad")
    cells[1::2, 20:].copy().write_h5ad(tmp_path / "b.h5ad")
    words = ["select-genes", "a.h5ad", "b.h5ad", "--n-genes", 60, "--json", "--engine", engine]
    refused = vcell(*words)
    assert refused.code == 2
    assert f"--join inner keeps the {n - 50} genes" in refused.err
    for join, genes in (("inner", n - 50), ("outer", n)):
        done = vcell(*words, "--join", join, "--overwrite")
        assert done.code == 0, done.err
        assert done.json["genes"] == genes
        assert (
            vcell("inspect", "a.h5ad", "b.h5ad", "--join", join, "--json").json["n_genes"] == genes
        )


def test_types_of_cells_are_not_taken_for_responses(vcell, screen, tmp_path):
    cells = screen[0].copy()
    cells.obs["cell_type"] = np.where(np.arange(cells.n_obs) % 3 == 0, "A", "B")
    skew = np.ones(cells.n_vars)
    skew[:150] = 5
    dense = cells.X.toarray() * np.where(cells.obs[["cell_type"]] == "A", skew, 1)
    keep = ~((cells.obs["target_gene"] == "NANOG") & (cells.obs["cell_type"] == "B"))
    cells.X = sparse.csr_matrix(dense.astype(np.float32))
    cells[keep.to_numpy()].copy().write_h5ad(
        tmp_path / "types.h5ad"
    )  # NANOG in cells of type A alone
    done = vcell("select-genes", "types.h5ad", "--n-genes", 60, "--json")
    assert done.code == 0, done.err
    found = {p["perturbation"]: p["responses"] for p in done.json["responses"]["perturbations"]}
    assert found["NANOG (A)"] <= 2
    assert found["KLF1 (A)"] >= 8
    assert found["KLF1 (B)"] >= 8
    assert "NANOG (B)" not in found


def test_a_file_without_perturbations_says_so_and_goes_on(vcell, screen, tmp_path):
    plain = screen[0].copy()
    plain.obs = plain.obs[["batch"]]
    plain.write_h5ad(tmp_path / "plain.h5ad")
    done = vcell("select-genes", "plain.h5ad", "--n-genes", 40, "-o", "genes")
    assert done.code == 0, done.err
    assert "no obs column names perturbations" in done.err
    assert len(rows_of(tmp_path / "genes")) == 40


def test_log_values_and_batches(vcell, screen, tmp_path):
    logged = screen[0].copy()
    logged.X = sparse.csr_matrix(np.log1p(logged.X.toarray() / logged.X.sum(axis=1) * 1e4))
    logged.write_h5ad(tmp_path / "logged.h5ad")
    done = vcell(
        "select-genes", "logged.h5ad", "--n-genes", 40, "--hvg-by-batch", "--groups", "none"
    )
    assert done.code == 0, done.err
    assert "batches: batch" in done.err
    assert "highly_variable_nbatches" in rows_of(tmp_path / "genes")[0]
    refused = vcell("select-genes", "logged.h5ad", "--hvg-flavor", "seurat_v3", "--overwrite")
    assert refused.code == 2
    assert "needs raw counts" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--groups", "metabolc"], "no group 'metabolc' (did you mean metabolic?)"),
        (["--groups", "none,tf"], "'none' stands alone"),
        (["--gene-set", "odd.gmt"], "odd.gmt:1: a line of a .gmt file"),
    ],
)
def test_mistakes_are_one_clear_sentence(vcell, screen_file, tmp_path, words, said):
    (tmp_path / "odd.gmt").write_text("a line without tabs\n")
    done = vcell("select-genes", screen_file, "-o", "genes", *words)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "genes").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quotas": ("tf=many",)}, "a quota is a number, a percentage or 'all'"),
        ({"quotas": ("hgv=3",)}, "'hgv' is not one of the groups"),
        ({"gene_set": (Path("absent.gmt"),)}, "absent.gmt does not exist"),
        ({"targets": Path("odd.csv")}, "no column of genes"),
        ({"perturbation_column": "guide"}, "no column 'guide'"),
        ({"max_mito": 0.1}, "no gene's name starts with MT-"),
        ({"min_genes": 100_000}, "no cell is left"),
    ],
)
def test_impossible_settings_are_refused(screen_file, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    Path("odd.csv").write_text("name,count\nA,1\n")
    with pytest.raises(UserError, match=re.escape(said)):
        run((screen_file,), SelectGenes(output=Path("genes"), **options))
    assert not Path("genes").exists()


def test_of_equal_names_only_the_first_is_chosen(screen, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = screen[0][:, :60].copy()
    cells.var.index = [f"gène{i % 50}" for i in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that the names are not unique
        cells.write_h5ad("twice.h5ad")
    run((Path("twice.h5ad"),), SelectGenes(output=Path("genes"), n_genes=55, groups=("hvg",)))
    assert "names that occurred before: of 10 genes" in capsys.readouterr().err
    names = [row["gene"] for row in rows_of(Path("genes"))]
    assert len(names) == len(set(names)) == 50


def test_no_file_and_no_counts(vcell, tmp_path):
    assert "no input file" in vcell("select-genes").err
    scaled = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    done = vcell("select-genes", "scaled.h5ad", "--groups", "none", "--n-genes", 4)
    assert done.code == 2
    assert "raw counts or log1p values are needed" in done.err
    assert "hint: use the file as it was before normalisation" in done.err


def test_another_layer_is_suggested_only_if_its_values_can_be_used(vcell, tmp_path):
    draw = np.random.default_rng(0)
    counts = draw.poisson(3.0, (20, 8)).astype(np.float32)
    cells = anndata.AnnData(draw.normal(size=(20, 8)).astype(np.float32))
    cells.raw = cells
    cells.layers["noise"] = draw.normal(size=(20, 8))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ("select-genes", "--groups", "none", "--n-genes", 4)
    done = vcell(*words, "cells.h5ad")
    assert "hint: use the file as it was before normalisation" in done.err
    cells.layers["the counts"] = counts
    cells.write_h5ad(tmp_path / "cells.h5ad")
    done = vcell(*words, "cells.h5ad")
    assert "hint: layer the counts holds raw counts" in done.err
    assert "try --layer 'the counts'" in done.err
    assert vcell(*words, "cells.h5ad", "--layer", "the counts", "-o", "out").code == 0
    cells.X = counts
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert "try --layer X" in vcell(*words, "cells.h5ad", "--layer", "raw").err


def test_perturbations_of_the_same_targets_are_named(vcell, screen_file, tmp_path):
    cells = anndata.read_h5ad(screen_file)
    column = cells.obs["target_gene"].astype(object).to_numpy()
    column[np.flatnonzero(column == "KLF1+SPI1")[:40]] = "SPI1+KLF1"
    cells.obs["target_gene"] = column
    cells.write_h5ad(tmp_path / "two.h5ad")
    done = vcell("select-genes", "two.h5ad", "-o", "genes", "--n-genes", 10)
    assert done.code == 0
    assert "count as different ones: 'KLF1+SPI1' and 'SPI1+KLF1'" in done.err


def test_an_unwritable_folder_is_reported_in_one_sentence(vcell, screen_file, tmp_path):
    (tmp_path / "genes").write_text("a file is in the way")
    done = vcell("select-genes", screen_file, "-o", "genes", "--groups", "none", "--n-genes", 10)
    assert done.code == 2
    assert "genes exists already and was not made by vcell" in done.err


def test_a_damaged_file_leaves_nothing_behind(vcell, screen_file, tmp_path):
    with h5py.File(screen_file, "r+") as file:
        file["X/indices"][5] = 100_000
    done = vcell("select-genes", screen_file, "-o", "genes", "--n-genes", 10)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert not (tmp_path / "genes").exists()
