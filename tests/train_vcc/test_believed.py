"""What a reader of the tables relies on: nothing held out is learnt, and own genes are left out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from vcell import models
from vcell.cli import run
from vcell.data.simulate import simulate
from vcell.models import Screen
from vcell.runs import Run, find_runs
from vcell.screen.sets import Groups
from vcell.screen.split import TEST, TRAIN
from vcell.store import Store

# approved symbols, and earlier ones of the same genes
RENAMED = {"MARCHF8": "MARCH8", "VSIR": "C10orf54", "KAT2B": "PCAF", "SMC3": "CSPG6"}


@pytest.fixture
def named(tmp_path):
    """Write a screen of twelve knock-downs whose names are changed by a function."""

    def write(file, change):
        adata = simulate(cells=700, genes=60, perturbations=12, umis=800.0, seed=1)
        labels = adata.obs["target_gene"].astype(str)
        targets = sorted(set(labels) - {"non-targeting"})
        symbol = dict(zip(targets[:4], RENAMED, strict=True))
        adata.var_names = [symbol.get(gene, gene) for gene in adata.var_names]
        labels = [symbol.get(name, name) for name in labels]
        adata.obs["target_gene"] = [
            name if name == "non-targeting" else change(name, i) for i, name in enumerate(labels)
        ]
        adata.write_h5ad(tmp_path / file)
        held = [*RENAMED, targets[4]]
        (tmp_path / f"{file}.txt").write_text("\n".join(change(name, 0) for name in held))
        return file

    return write


def held_out():
    """Return the scores of `held_out.csv` by model, perturbations in the order of their names."""
    rows = list(csv.DictReader((Run.open("latest").path / "held_out.csv").read_text().splitlines()))
    scores = [name for name in rows[0] if name not in ("perturbation", "context", "model")]
    found = {}
    for row in rows:
        found.setdefault(row["model"], []).append([float(row[name]) for name in scores])
    return {model: np.sort(values, axis=0) for model, values in found.items()}


@pytest.mark.parametrize(
    "change",
    [lambda name, i: RENAMED.get(name, name), lambda name, i: f"{name}+ctrl"],
    ids=["earlier symbols", "with a second guide that targets nothing"],
)
def test_an_own_gene_is_one_under_any_name(named, change):
    found = []
    for file, by in (("plain.h5ad", lambda name, i: name), ("other.h5ad", change)):
        words = ["--model", "ridge", "--no-shipped-features", "--held-out", f"{file}.txt"]
        validation = ["--validation-share", "0.01"]
        assert run(["train-vcc", named(file, by), *words, *validation]) == 0
        found.append(held_out())
    plain, other = found
    for model in ("mean", "perturbed-mean-own", "no-change", "reachable", "chance"):
        assert other[model] == pytest.approx(plain[model], abs=1e-4), model


def test_the_same_targets_in_another_order_are_one_perturbation(named, capsys):
    plain = named("plain.h5ad", lambda name, i: f"{name}+ctrl")
    twice = named("twice.h5ad", lambda name, i: f"{name}+ctrl" if i % 2 else f"ctrl+{name}")
    found = []
    for cells in (plain, twice):
        assert run(["train-vcc", cells, "--model", "ridge", "--folds", "4"]) == 0
        this = Run.open("latest")
        held = []
        for one in find_runs(this.path / "folds")[0]:
            screen = Screen.load(one.path / models.SCREEN)
            held += screen.perturbations[screen.part == TEST].tolist()
        found.append((sorted(held), (this.path / "held_out.csv").read_text()))
    assert "12 perturbations with the same targets as another, taken together" in (
        capsys.readouterr().err
    )
    assert found[0] == found[1]
    assert len(found[0][0]) == 12


def test_cells_of_both_names_are_drawn_for_a_network(named):
    cells = named("twice.h5ad", lambda name, i: f"{name}+ctrl" if i % 2 else f"ctrl+{name}")
    words = ["--model", "transformer", "--preset", "tiny", "--max-steps", "2"]
    assert run(["train-vcc", cells, *words]) == 0
    this = Run.open("latest")
    screen = Screen.load(this.path / models.SCREEN)
    with Store.open(Path(this.meta["store"]["path"])) as store:
        row = Groups.of(store, screen, this.meta["labels"], TRAIN).row
    drawn = np.bincount(row[row >= 0], minlength=len(screen.perturbations) + 1)[:-1]
    assert drawn.tolist() == np.where(screen.part == TRAIN, screen.cells, 0).tolist()


@pytest.mark.parametrize("given", ["SMC3+ctrl", "ctrl+SMC3", "SMC3", "CSPG6"])
def test_a_held_out_perturbation_may_have_another_name(named, tmp_path, capsys, given):
    cells = named("cells.h5ad", lambda name, i: f"{name}+ctrl")
    (tmp_path / "one.txt").write_text(f"{given}\n")
    assert run(["train-vcc", cells, "--model", "ridge", "--held-out", "one.txt"]) == 0
    screen = Screen.load(Run.open("latest").path / models.SCREEN)
    assert screen.perturbations[screen.part == TEST].tolist() == ["SMC3+ctrl"]
    renamed = f"one.txt: {given} is SMC3+ctrl" in capsys.readouterr().err
    assert renamed == (given != "SMC3+ctrl")


def test_held_out_alone_they_are_compared_with_the_reachable_level_only(named, capsys):
    words = ["--model", "ridge", "--folds", "12"]
    assert run(["train-vcc", named("plain.h5ad", lambda name, i: name), *words]) == 0
    said = capsys.readouterr().out
    text = (Run.open("latest").path / "folds.md").read_text()
    for table in (said, text):
        assert "reachable" in table
        assert "chance" not in table
    assert text.count("reachable |") == 2  # the second table leaves out own genes
    rows = held_out()
    assert (rows["reachable"][:, 1] > 0).all()
    assert np.isnan(rows["chance"]).all()


def test_the_model_card_names_the_features_that_were_used(named):
    np.savez("mine.npz", genes=list(RENAMED), features=np.eye(4))
    cells = named("plain.h5ad", lambda name, i: name)
    assert run(["train-vcc", cells, "--model", "ridge", "--features", "mine.npz"]) == 0
    card = (Run.open("latest").path / "model-card.md").read_text()
    assert "genes: expression, mine.npz, Gene Ontology (comes with vcell), Reactome" in card
    assert "Without the perturbations' own genes:" in card
