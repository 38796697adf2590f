"""`vcell predict` on a run of `--folds` or `--sweep`: its folds or its best trial predict."""

from __future__ import annotations

import shutil

import anndata
import numpy as np
import pytest

from vcell.cli import run
from vcell.models import SCREEN, Screen
from vcell.runs import Run
from vcell.screen.split import TEST


def trained(cells, folder, *words):
    assert run(["train-vcc", str(cells), "--runs", str(folder), "--model", "ridge", *words]) == 0
    return Run.open("latest", root=folder)


@pytest.fixture(scope="module")
def folds(cells, tmp_path_factory):
    return trained(cells, tmp_path_factory.mktemp("folds") / "runs", "--folds", "2")


@pytest.fixture(scope="module")
def sweep(cells, tmp_path_factory):
    pytest.importorskip("optuna")
    ranges = ["--sweep", "2", "--sweep-over", "components = [3, 12]"]
    return trained(cells, tmp_path_factory.mktemp("sweep") / "runs", *ranges)


def same_cells(one, other):
    a, b = anndata.read_h5ad(one), anndata.read_h5ad(other)
    return (a.X != b.X).nnz == 0 and (a.obs == b.obs).all(axis=None)


def named(screen_run, n=3):
    from vcell.models import SCREEN, Screen

    return ",".join(Screen.load(screen_run.parts()[0].path / SCREEN).perturbations[:n])


def test_folds_predict_together(predict, folds):
    names = ["--perturbations", named(folds)]
    said = predict(*names, of=[str(folds.path)])
    assert "the mean of its folds is predicted (2 of 2 are done)" in said.err
    assert said.json["runs"] == [str(part.path) for part in folds.parts()]
    predict(*names, "-o", "apart.h5ad", of=[str(part.path) for part in folds.parts()])
    assert same_cells("p.h5ad", "apart.h5ad")
    assert np.isfinite(said.json["table"]["uncertainty_between_runs"]).all()


def test_perturbations_held_out_by_every_fold_must_be_named(predict, folds, tmp_path):
    said = predict(of=[str(folds.path)])
    assert said.code == 2
    assert "no perturbation was held out by all of the 2 runs" in said.err
    assert not (tmp_path / "p.h5ad").exists()


def test_the_best_trial_predicts(predict, sweep):
    said = predict(of=[str(sweep.path)])
    best = sweep.meta["summary"]["best"]
    assert f"its best trial is used, {best}" in said.err
    assert said.json["runs"] == [str(sweep.path / "trials" / best)]
    assert sweep.meta["summary"]["score"] == max(e["value"] for e in sweep.events({"trial"}))


def test_finished_folds_predict_if_others_did_not_finish(predict, folds):
    calm = {name: folds.meta[name] for name in ("stands_for", "status")}
    names = ["--perturbations", named(folds)]
    try:
        folds.update(stands_for=calm["stands_for"][:1], status="interrupted")
        said = predict(*names, of=[str(folds.path)])
        assert "(1 of 2 are done)" in said.err
        assert len(said.json["runs"]) == 1
        folds.update(stands_for=[])
        said = predict(*names, of=[str(folds.path)])
        assert said.code == 2
        assert "none of its folds is done" in said.err
    finally:
        folds.update(**calm)


def test_a_duplicate_run_is_refused(predict, runs):
    said = predict(of=["latest", Run.open("latest", root=runs).name])
    assert said.code == 2
    assert "named twice" in said.err


def test_perturbations_of_the_training_set_are_reported(predict, cells):
    assert "in the training of" not in predict().err
    told = predict("--like", cells).err
    assert "there in the training of the run: 27 of 34 perturbations" in told


def test_they_are_found_under_other_names(predict, runs):
    screen = Screen.load(next(runs.iterdir()) / SCREEN)
    learnt = screen.perturbations[screen.part != TEST].tolist()
    names = [f"{learnt[0]}+ctrl", f"ctrl+{learnt[1]}"]
    told = predict("--perturbations", ",".join(names)).err
    assert "there in the training of the run: 2 of 2 perturbations" in told


def test_moved_cells_must_be_named(predict, runs, cells, tmp_path):
    moved = tmp_path / "moved.h5ad"
    moved.write_bytes(cells.read_bytes())
    lost = tmp_path / "lost"
    shutil.copytree(next(runs.iterdir()), lost)
    this = Run.open(lost)
    this.update(config=this.meta["config"] | {"cells": str(tmp_path / "gone.h5ad")})
    said = predict(of=[str(lost)])
    assert said.code == 2
    assert "gone.h5ad does not exist, the cells that lost was trained on" in said.err
    assert predict("--control-cells", moved, of=[str(lost)]).code == 0


def test_the_same_gene_twice_is_that_gene(predict):
    found = predict("--perturbations", "GENE00029,GENE00029+GENE00029", "--n-cells", 5).json
    assert found["table"]["effect"][0] == found["table"]["effect"][1]
