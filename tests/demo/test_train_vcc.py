"""`vcell train-vcc` as a user runs it, with closed-form models: scores, files and refusals."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest

from vcell.cli import run
from vcell.models import SCREEN, Screen
from vcell.runs import Run


def test_it_beats_the_mean_on_unseen_perturbations_and_reports_it(runs):
    this = Run.open("latest", root=runs)
    assert this.status() == "done"
    found = this.meta["summary"]["held_out"]
    assert set(found) == {
        *("mean", "perturbed-mean", "perturbed-mean-own", "no-change", "ridge", "knn", "gp")
    }
    assert found["gp"]["pds"] > found["mean"]["pds"]
    assert found["gp"]["mae"] < found["mean"]["mae"]
    screen = Screen.load(this.path / SCREEN)
    assert [(screen.part == k).sum() for k in range(3)] == [23, 4, 7]
    assert this.meta["labels"]["control"] == "non-targeting"


def test_the_result_is_json_for_programs(cells, capsys):
    assert run(["train-vcc", str(cells), "--model", "ridge", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "ridge"
    assert len(result["perturbations"]) == 7


def test_the_result_is_a_sentence_and_a_table_for_people(cells, capsys):
    assert run(["train-vcc", str(cells), "--model", "mean"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("the mean baseline\n7 held-out perturbations")
    assert "without the perturbations' own genes" in said


def changed(cells, tmp_path, change):
    adata = anndata.read_h5ad(cells)
    adata = change(adata) or adata
    adata.write_h5ad(tmp_path / "changed.h5ad")
    return tmp_path / "changed.h5ad"


def one_cell_each(adata):
    name = adata.obs["target_gene"].to_numpy()
    _, first = np.unique(name, return_index=True)
    return adata[np.union1d(first, np.flatnonzero(name == "non-targeting"))].copy()


def no_labels(adata):
    del adata.obs["target_gene"]


def no_control(adata):
    return adata[adata.obs["target_gene"] != "non-targeting"].copy()


def other_species(adata):
    adata.var_names = [f"mm{name}" for name in adata.var_names]


def normalised(adata):
    total = np.asarray(adata.X.sum(axis=1))
    adata.X = (adata.X.toarray() / total * 1e4).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_cell_each, "no perturbation has 10 cells"),
        (no_labels, "no obs column has a name that says it holds perturbations"),
        (no_control, "no label that is known to mean control"),
        (other_species, "perturbations have no features"),
        (normalised, "normalised values (not logged)"),
    ],
)
def test_unsuitable_cells_are_refused_before_training(cells, tmp_path, capsys, change, said):
    assert run(["train-vcc", str(changed(cells, tmp_path, change))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--control", "nobody"], "'nobody'"),
        (["--perturbation-column", "target"], "did you mean target_gene"),
        (["--model", "transfromer"], "did you mean transformer"),
        (["--held-out", "held.txt"], "no cell has that perturbation"),
        (["--genes", "missing.csv"], "missing.csv"),
        (["--features", "held.txt"], "not a gene feature table"),
        (["--test-share", "0.9", "--validation-share", "0.9"], "left to learn from: "),
        (["--resume", "yesterday"], "there are no runs in runs"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(cells, tmp_path, capsys, words, said):
    (tmp_path / "held.txt").write_text("NOGENE\n")
    assert run(["train-vcc", str(cells), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_small_perturbations_and_unknown_targets_are_left_out_with_a_message(
    cells, tmp_path, capsys
):
    def rename_one_and_shrink_one(adata):
        names = adata.obs["target_gene"].cat.categories.tolist()
        labels = adata.obs["target_gene"].astype(str).to_numpy()
        labels[labels == names[2]] = "NOGENE"
        adata.obs["target_gene"] = labels
        small = np.flatnonzero(labels == names[1])[3:]
        return adata[np.setdiff1d(np.arange(adata.n_obs), small)].copy()

    path = changed(cells, tmp_path, rename_one_and_shrink_one)
    assert run(["train-vcc", str(path), "--model", "ridge"]) == 0
    said = capsys.readouterr().err
    assert "left out, with fewer than 10 cells each: " in said
    assert "left out: 1 of 33 perturbations, whose targets have no features: NOGENE" in said


def test_a_feature_table_is_used_and_genes_it_lacks_are_unknown(cells, simulator, tmp_path):
    genes = simulator.truth.genes
    np.savez(tmp_path / "f.npz", genes=genes[1:], features=simulator.truth.loadings.T[1:])
    assert run(["train-vcc", str(cells), "--model", "ridge", "--features", "f.npz"]) == 0
    screen = Screen.load(Run.open("latest").path / SCREEN)
    assert screen.features.shape[1] == 32 + simulator.design.programmes
    assert screen.known([str(genes[0])])[0]  # by its expression
    assert not screen.known(["NOGENE"])[0]


def test_log1p_cells_give_the_same_effects_as_their_counts(cells, tmp_path):
    def to_log1p(adata):
        x = adata.X.toarray().astype(np.float64)
        adata.X = np.log1p(x * 1e4 / x.sum(axis=1, keepdims=True)).astype(np.float32)

    path = changed(cells, tmp_path, to_log1p)
    for name, file in (("a", cells), ("b", path)):
        words = ["train-vcc", str(file), "--model", "mean", "--runs", name]
        assert run([*words, "--target-sum", "10000"]) == 0
    a, b = (Screen.load(Run.open("latest", root=n).path / SCREEN) for n in "ab")
    assert np.allclose(a.delta, b.delta, atol=1e-4)
    assert a.target_sum == 10_000
    assert np.isnan(b.target_sum)


def test_counts_are_scaled_to_the_median_of_the_controls(cells, runs):
    adata = anndata.read_h5ad(cells)
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    control = (adata.obs["target_gene"] == "non-targeting").to_numpy()
    screen = Screen.load(Run.open("latest", root=runs).path / SCREEN)
    assert screen.target_sum == np.median(totals[control])
