"""Features of targets: tables, gene names, and the perturbations that can be held out."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from vcell_train_vcc import TrainVcc

from vcell.cli import run
from vcell.data.simulate import simulate
from vcell.errors import UserError
from vcell.genes.features import shipped_about, shipped_features
from vcell.models import SCREEN, Screen
from vcell.runs import Run
from vcell.screen.known import Known
from vcell.screen.split import TEST

# none of them is a gene of the cells; two are called otherwise today
REAL = ("TP53", "MYC", "GATA1", "KLF1", "STAT1", "MED12", "SRC", "TET1", "MARCH8", "C10orf54")


@pytest.fixture
def unmeasured(tmp_path):
    """A screen of ten targets that are not measured and two unknown ones."""
    adata = simulate(cells=700, genes=60, perturbations=12, seed=1)
    names = sorted(set(adata.obs["target_gene"].astype(str)) - {"non-targeting"})
    called = dict(zip(names, [*REAL, "NOGENE1", "NOGENE2"], strict=True))
    adata.obs["target_gene"] = [called.get(str(n), str(n)) for n in adata.obs["target_gene"]]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return "cells.h5ad"


def test_unmeasured_targets_have_the_shipped_features(unmeasured, capsys):
    assert run(["train-vcc", unmeasured, "--model", "gp", "--json"]) == 0
    said = capsys.readouterr()
    assert "Gene Ontology (comes with vcell) knows 10 of 10 targets" in said.err
    assert "left out: 2 of 12 perturbations" in said.err
    assert "NOGENE1, NOGENE2" in said.err
    screen = Screen.load(Run.open("latest").path / SCREEN)
    assert set(screen.perturbations.tolist()) == set(REAL)
    assert screen.known(["MARCH8", "MARCHF8", "VSIR", "TP53"]).all()
    assert not screen.known(["NOGENE1"]).any()
    assert (screen.pooled(["MARCH8"]) == screen.pooled(["MARCHF8"])).all()
    assert (screen.part == TEST).sum() == 2  # a fifth of those that can be predicted
    assert len(json.loads(said.out)["perturbations"]) == 2


def test_without_shipped_features_it_fails_with_a_hint(unmeasured, capsys):
    assert run(["train-vcc", unmeasured, "--model", "gp", "--no-shipped-features"]) == 2
    said = capsys.readouterr().err
    assert "the targets of 12 of 12 perturbations have no features" in said
    assert "vcell features" in said


def test_a_table_with_other_gene_names_is_matched(unmeasured, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "tables").mkdir()
    for name, genes in {
        "ids": ["ENSG00000141510", "ENSG00000136997"],
        "new": ["MARCHF8", "VSIR", "TP53", "MARCH8"],
    }.items():
        np.savez(tmp_path / "tables" / f"{name}.npz", genes=genes,
                 features=rng.normal(size=(len(genes), 3)))  # fmt: skip
    with gzip.open(tmp_path / "tables" / "packed.tsv.gz", "wt") as file:
        file.write("gene\ta\tb\nTP53\t1\t2\nMYC\t-2\t1\n")
    words = ["--features", "tables", "--model", "gp"]
    assert run(["train-vcc", unmeasured, *words]) == 0
    said = capsys.readouterr().err
    assert "tables/ids.npz knows 2 of 10 targets" in said
    assert "tables/new.npz knows 3 of 10 targets" in said
    assert "MYC as ENSG00000136997" in said
    screen = Screen.load(Run.open("latest").path / SCREEN)
    assert screen.blocks.tolist() == [
        "expression", "tables/ids.npz", "tables/new.npz", "tables/packed.tsv.gz",
        "Gene Ontology (comes with vcell)", "Reactome (comes with vcell)",
    ]  # fmt: skip
    assert screen.widths.tolist()[1:4] == [3, 3, 2]
    assert sum(screen.widths) == screen.features.shape[1]


def test_an_empty_folder_of_tables_is_refused(unmeasured, tmp_path, capsys):
    (tmp_path / "tables").mkdir()
    assert run(["train-vcc", unmeasured, "--features", "tables"]) == 2
    assert "tables has no gene feature tables" in capsys.readouterr().err


def test_a_pair_with_one_unknown_target_is_only_in_the_training_set():
    names = ["TP53", "MYC", "GATA1", "TP53+NOGENE", "OTHER"]
    known = Known.of(["g1", "g2"], names, TrainVcc(cells=None))
    assert known.predictable == {"TP53", "MYC", "GATA1"}
    assert known.learnable == {"TP53", "MYC", "GATA1", "TP53+NOGENE"}


def test_one_predictable_perturbation_is_too_few():
    with pytest.raises(UserError, match="of 1 of 2 perturbations have no features"):
        Known.of(["g1"], ["TP53", "NOGENE"], TrainVcc(cells=None))


def test_what_is_shipped_is_small_named_and_licensed():
    about = shipped_about()
    for (title, genes, values), facts in zip(shipped_features(), about.values(), strict=True):
        assert title == facts["title"]
        assert values.shape == (len(genes), facts["width"]) == (facts["genes"], facts["width"])
        assert np.isfinite(values).all()
        assert len(set(genes)) == len(genes)
        assert facts["licence"] in ("CC-BY-4.0", "CC0-1.0")
    go = {gene: row for row, gene in enumerate(shipped_features()[0][1])}
    values = shipped_features()[0][2]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    near = unit @ unit[go["PSMA1"]]  # a subunit of the proteasome: so are the genes nearest to it
    nearest = sorted(go, key=lambda g: -near[go[g]])[:12]
    assert sum(gene.startswith("PSM") for gene in nearest) >= 9


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("gene,a,b\n", 2, "error: mine.csv names no genes"),
        (
            "gene,a\nTP53,1\nMYC,\nKLF1,2\n",
            0,
            "mine.csv: left out, with a feature that is missing or not finite: MYC",
        ),
        (
            "gene,a,b\nTP53,0,3\nMYC,0,3\n",
            0,
            "mine.csv says nothing: its 2 genes have equal features",
        ),
    ],
    ids=["no genes", "a missing value", "a constant"],
)
def test_what_a_table_does_not_say_is_told(unmeasured, tmp_path, capsys, text, code, said):
    (tmp_path / "mine.csv").write_text(text)
    assert run(["train-vcc", unmeasured, "--model", "ridge", "--features", "mine.csv"]) == code
    assert said in capsys.readouterr().err
