"""Errors that can be seen at once come before reading: every file of cells here is damaged."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

SYNTHETIC = ("--model", "synthetic:gf-6L-10M-i2048")
TOLD = {
    # what is asked for
    "a fold that is none": (("train-vcc", "{}", "--fold", "7/5"), "--fold '7/5' is not K/N"),
    "a fold of zero": (("train-vcc", "{}", "--fold", "0/5"), "--fold '0/5' is not K/N"),
    "a fold in words": (("train-vcc", "{}", "--fold", "second"), "is not K/N"),
    # files that are not there
    "genes": (("train-vcc", "{}", "--genes", "g.csv"), "--genes: g.csv does not exist"),
    "features": (("train-vcc", "{}", "--features", "{}", "--features", "f"), "f does not exist"),
    "held out": (("train-vcc", "{}", "--held-out", "h.csv"), "h.csv does not exist"),
    "prior effects": (("train-vcc", "{}", "--prior-effects", "e.parquet"), "does not exist"),
    "genes to keep": (("prepare", "{}", "--genes", "g.csv"), "--genes: g.csv does not exist"),
    "targets": (("select-genes", "{}", "--targets", "t.csv"), "--targets: t.csv does not exist"),
    "the challenge's genes": (("pack", "{}", "-o", "o.vcc", "--genes", "g.csv"), "g.csv does not"),
    "the panel": (("pack", "{}", "-o", "o.vcc", "--perturbations", "p.csv"), "p.csv does not"),
    "real cells": (("predict", "--evaluate", "real.h5ad"), "--evaluate: real.h5ad does not exist"),
    "cells to copy": (("predict", "--like", "real.h5ad"), "--like: real.h5ad does not exist"),
    "a source": (("features", "go.gmt", "--cells", "{}"), "go.gmt: there is no such file"),
    "ids": (("features", "{}", "--ids", "ids.txt"), "--ids: ids.txt does not exist"),
    "a run of states": (
        ("train-bulk", "{}", "--cell-type-column", "x", "--gmvae", "gone"),
        "there are no runs in",
    ),
    "no model": (("isp", "run", "{}"), "no model is named"),
    "a model": (("isp", "run", "{}", "--model", "gone"), "gone does not exist"),
    "a model that embeds": (
        ("isp", "embed", "{}", "--model", "gone", "-o", "o.h5ad"),
        "gone does not exist",
    ),
    "a model to time": (("isp-bench", "{}", "--model", "gone"), "gone does not exist"),
    "a model of random weights": (
        ("isp", "run", "{}", "--model", "synthetic:gf-6L"),
        "there is no synthetic:gf-6L",
    ),
    "no pipeline": (("pipeline", "status"), "no stage of a pipeline is done in pipeline"),
    "own cells": (("demo", "--data", "mine.h5ad"), "--data: mine.h5ad does not exist"),
    # outputs of a wrong kind
    "a table": (("de", "{}", "-o", "q.xlsx"), "must end in .parquet or .csv"),
    "effects": (("effects", "{}", "-o", "q.xlsx"), "must end in .parquet"),
    "a page": (("inspect", "{}", "--html", "q.xlsx"), "must end in .html or .htm"),
    "an archive": (("pack", "{}", "-o", "q.xlsx"), "must end in .vcc"),
    "cells": (("predict", "-o", "q.xlsx"), "must end in .h5ad"),
    "a folder of scores": (("evaluate", "{}", "{}", "-o", "q.xlsx"), "this output is a folder"),
    "a folder of genes": (("select-genes", "{}", "-o", "genes.csv"), "this output is a folder"),
    "a store": (("prepare", "{}", "-o", "q.h5ad"), "this output is a folder"),
    "copied cells": (("convert", "{}", "q.xlsx"), "an .h5ad file or a .zarr folder"),
    "simulated cells": (("simulate", "q.xlsx"), "must end in .h5ad or .zarr"),
    "named cells": (("embed", "latest", "{}", "-o", "q.xlsx"), "must end in .h5ad"),
    "embedded cells": (("isp", "embed", "{}", "-o", "q.xlsx", *SYNTHETIC), "must end in .h5ad"),
    "statistics": (("isp", "stats", "-o", "q.xlsx"), "must end in .csv or .parquet"),
    "a page of times": (("isp-bench", "{}", "-o", "q.xlsx"), "must end in .html"),
    "folds in a file": (("train-vcc", "{}", "--folds", "2", "--runs", "{}"), "is not a folder"),
}


@pytest.mark.parametrize("name", TOLD)
def test_it_is_reported_before_reading(typed, tmp_path, name):
    (tmp_path / "damaged.h5ad").write_bytes(b"whoever reads it complains of that")
    words, said = TOLD[name]
    ran = typed(*(str(word).format("damaged.h5ad") for word in words))
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.h5ad"]


def test_a_missing_file_is_reported_with_the_line_or_variable_that_names_it(
    typed, tmp_path, monkeypatch
):
    (tmp_path / "vcell.toml").write_text('[train-vcc]\nruns = "here"\ngenes = "g.csv"\n')
    assert "vcell.toml:3: genes: " in typed("train-vcc", "c.h5ad").err
    monkeypatch.setenv("VCELL_TRAIN_VCC_GENES", "other.csv")
    assert "VCELL_TRAIN_VCC_GENES: other.csv does not exist" in typed("train-vcc", "c.h5ad").err


@pytest.fixture
def twice(tmp_path):
    """Cells with a duplicate gene name and NaN, which reading the values would report."""
    cells = anndata.AnnData(np.full((60, 4), np.nan, np.float32))
    cells.obs["perturbation"] = np.repeat(["control", "B", "C"], 20)
    cells.var_names = ["A", "B", "C", "B"]
    cells.write_h5ad(tmp_path / "twice.h5ad")
    return tmp_path / "twice.h5ad"


@pytest.mark.parametrize(
    "words",
    [
        ("de", "{}", "-o", "o.csv"),
        ("evaluate", "{}", "{}"),
        ("effects", "{}"),
        ("train-vcc", "{}"),
        ("train-gmvae", "{}", "--labels", "perturbation"),
    ],
)
def test_duplicate_gene_names_are_reported_first(typed, twice, words):
    ran = typed(*(word.format(twice) for word in words))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {twice}") or ran.err.startswith("error: twice.h5ad")
    assert "names 1 gene more than once: B" in ran.err
    assert [p.name for p in twice.parent.iterdir()] == ["twice.h5ad"]


def test_prepare_keeps_duplicate_gene_names_with_a_message(typed, tmp_path):
    cells = anndata.AnnData(np.ones((60, 3), np.float32))
    cells.var_names = ["A", "B", "B"]
    cells.write_h5ad(tmp_path / "twice.h5ad")
    ran = typed("prepare", "twice.h5ad", "-o", "store.zarr", "--min-genes", "1")
    assert ran.code == 0, ran.err
    assert "names 1 gene more than once: B" in ran.err
