"""Closed-form models are refitted with the validation perturbations once they are chosen."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from vcell_predict.ensemble import Ensemble

from vcell import console, models
from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.models import Screen
from vcell.models.scoring import each
from vcell.runs import Run
from vcell.screen.split import TEST, TRAIN, VALIDATION


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of gp whose validation share is large."""
    folder = tmp_path_factory.mktemp("settled")
    Simulator(cells=900, genes=80, perturbations=24, umis=800.0, seed=1).write(folder / "c.h5ad")
    words = ["--model", "gp", "--validation-share", "0.4", "--runs", str(folder / "runs")]
    assert run(["train-vcc", str(folder / "c.h5ad"), *words]) == 0
    return Run.open("latest", root=folder / "runs")


@pytest.fixture
def screen(trained, monkeypatch):
    monkeypatch.setattr(console, "settings", console.Settings())
    return Screen.load(trained.path / models.SCREEN)


def test_only_the_validation_perturbations_are_added(screen):
    settled = screen.settled()
    added = np.flatnonzero(settled.part != screen.part)
    assert added.tolist() == screen.rows(VALIDATION).tolist()
    assert (settled.part[added] == TRAIN).all()
    assert settled.rows(TEST).tolist() == screen.rows(TEST).tolist()


def test_every_model_is_scored_with_it(trained, screen):
    rows = screen.rows(TEST)
    names, contexts = screen.names(rows)
    table = list(csv.DictReader((trained.path / "held_out.csv").read_text().splitlines()))
    for model in ("perturbed-mean", "ridge", "gp"):
        predictor = models.get(model).load(trained, screen.settled())
        want = each(predictor.predict(names, contexts), screen.delta[rows], screen.targets(names))
        mae = {row["perturbation"]: float(row["mae"]) for row in table if row["model"] == model}
        assert [mae[name] for name in names] == pytest.approx(want["mae"].tolist(), rel=1e-5)


def test_predict_uses_the_refit_and_is_scored_without_it(trained, screen):
    ensemble = Ensemble.open([str(trained.path)], trained.path.parent, None)
    gp = models.get("gp")
    for part, asked, fitted in (
        (TEST, ensemble, screen.settled()),
        (VALIDATION, ensemble.as_chosen(), screen),
    ):
        names, contexts = screen.names(screen.rows(part))
        want = gp.load(trained, fitted).predict(names, contexts)
        assert np.array_equal(asked.predict(names, contexts), want)
    rows, effects = ensemble.members[0].out_of_sample()
    n = len(screen.rows(VALIDATION))
    assert rows[:n].tolist() == screen.rows(VALIDATION).tolist()
    assert np.array_equal(effects[:n], want)
