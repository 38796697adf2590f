"""`vcell effects` and `train-vcc --prior-effects`: prior effects count as far as they agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.cli import run
from vcell.data.simulate import CONTROL, simulate
from vcell.models import Screen
from vcell.models.scoring import each
from vcell.models.transfer import Transfer
from vcell.screen.prior_effects import PriorEffects

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def cells(tmp_path):
    adata = simulate(cells=900, genes=60, perturbations=12, seed=1)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return adata


def test_effects_and_their_errors_are_those_of_every_gene(cells, capsys):
    assert run(["effects", "cells.h5ad", "--target-sum", "1e4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = PriorEffects.read(Path("effects.parquet"))
    assert told["perturbations"] == len(found.perturbations) == 12
    x = cells.X.toarray().astype(np.float64)
    x = np.log1p(x * 1e4 / x.sum(axis=1, keepdims=True))
    name, batch = cells.obs["target_gene"].to_numpy(), cells.obs["batch"].to_numpy()
    for row, one in enumerate(found.perturbations):
        own = np.flatnonzero(name == one)
        expected, noise = x[own].mean(axis=0), x[own].var(axis=0, ddof=1) / len(own)
        for b in np.unique(batch):
            share = (batch[own] == b).mean()
            control = x[(name == CONTROL) & (batch == b)]
            expected = expected - share * control.mean(axis=0)
            noise = noise + share**2 * control.var(axis=0, ddof=1) / len(control)
        np.testing.assert_allclose(found.effect[row], expected, atol=1e-5)
        np.testing.assert_allclose(found.error[row], np.sqrt(noise), atol=1e-5)
        assert found.cells[row] == len(own)


def test_a_single_control_of_a_batch_is_not_free_of_noise(cells):
    batch, name = cells.obs["batch"].to_numpy(), cells.obs["target_gene"].to_numpy()
    alone = np.flatnonzero((name == CONTROL) & (batch == batch[0]))
    fewer = cells[np.setdiff1d(np.arange(len(cells)), alone[1:])]
    fewer.write_h5ad("fewer.h5ad")
    assert run(["effects", "fewer.h5ad", "--target-sum", "1e4"]) == 0
    found = PriorEffects.read(Path("effects.parquet"))
    x = fewer.X.toarray().astype(np.float64)
    x = np.log1p(x * 1e4 / x.sum(axis=1, keepdims=True))
    name, batch = fewer.obs["target_gene"].to_numpy(), fewer.obs["batch"].to_numpy()
    control = {b: x[(name == CONTROL) & (batch == b)] for b in np.unique(batch)}
    free = sum(len(one) - 1 for one in control.values())
    within = sum(((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in control.values()) / free
    own = name == found.perturbations[0]
    noise = x[own].var(axis=0, ddof=1) / own.sum()
    for b, one in control.items():
        variance = within if len(one) == 1 else one.var(axis=0, ddof=1) / len(one)
        noise = noise + (batch[own] == b).mean() ** 2 * variance
    np.testing.assert_allclose(found.error[0], np.sqrt(noise), atol=1e-5)


def test_the_file_is_plain_parquet(cells):
    assert run(["effects", "cells.h5ad", "-o", "e.parquet"]) == 0
    table = pd.read_parquet("e.parquet")
    assert list(table) == ["perturbation", "context", "cells", "effect", "standard_error"]
    assert np.vstack(table["effect"]).shape == (12, 60)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), ("junk", "is not a file of effects")],
)
def test_other_files_than_effects_are_refused(cells, tmp_path, capsys, content, said):
    if content:
        (tmp_path / "e.parquet").write_text(content)
    words = ["train-vcc", "cells.h5ad", "--model", "gp", "--prior-effects", "e.parquet"]
    assert run(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert content is None or "vcell effects" in error
    assert not (tmp_path / "runs").exists()


def test_another_parquet_file_is_refused(cells, tmp_path, capsys):
    pd.DataFrame({"a": [1.0]}).to_parquet(tmp_path / "e.parquet")
    assert run(["train-vcc", "cells.h5ad", "--prior-effects", "e.parquet"]) == 2
    assert "not one of effects" in capsys.readouterr().err


def screen(agreement, *, p=60, n=80, seed=0):
    """A screen, and another whose effects agree with it in a share of their variance."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(p, n)) * 0.3
    other = agreement * truth + np.sqrt(1 - agreement**2) * 0.3 * rng.normal(size=(p, n))
    part = np.zeros(p, np.int8)
    part[: p // 3] = 2
    names = np.array([f"P{i}" for i in range(p)])
    return Screen(
        genes=np.array([f"g{i}" for i in range(n)]),
        contexts=np.array(["all"]),
        control=np.ones((1, n), np.float32),
        perturbations=names,
        context=np.zeros(p, np.int64),
        part=part,
        cells=np.full(p, 50),
        delta=(truth + 0.1 * rng.normal(size=(p, n))).astype(np.float32),
        noise=np.full(p, 0.01, np.float32),
        feature_genes=names,
        features=rng.normal(size=(p, 4)).astype(np.float32),
        target_sum=1e4,
        prior_sources=np.array(["other"]),
        prior_source=np.zeros(p, np.int64),
        prior_names=names,
        prior_effects=other.astype(np.float32),
    )


def scored(of):
    rows = of.rows(2)
    guess = GaussianProcess(of).predict(of.perturbations[rows].tolist())
    return each(guess, of.delta[rows], np.full(len(rows), -1))["delta_correlation"].mean()


def test_a_prior_screen_counts_only_if_it_agrees():
    for agreement, low, high in ((0.9, 0.8, 1.0), (0.5, 0.4, 0.6)):
        weight = Transfer(screen(agreement)).weights[0]
        assert low < weight < high
    believed = [Transfer(screen(0.0, seed=seed)).weights[0] for seed in range(40)]
    assert np.count_nonzero(believed) <= 3  # two standard errors, one side


def test_effects_of_another_line_predict_what_features_cannot():
    for agreement, least in ((0.9, 0.7), (0.5, 0.3)):
        with_ = screen(agreement)
        without = dataclasses.replace(with_, prior_sources=np.zeros(0, np.str_))
        assert scored(with_) > scored(without) + least
    none = screen(0.0)
    without = dataclasses.replace(none, prior_sources=np.zeros(0, np.str_))
    assert scored(none) > scored(without) - 0.02


def test_a_left_out_perturbation_is_predicted_without_its_own_effect():
    fitted = GaussianProcess(screen(0.9))
    rows = fitted.learned
    apart = each(fitted.loo(), fitted.targets.delta[rows], np.full(len(rows), -1))
    assert 0.6 < apart["delta_correlation"].mean() < 0.95


def test_effects_of_one_half_of_a_screen_help_the_other_through_the_commands(cells, capsys):
    half = np.random.default_rng(0).random(cells.n_obs) < 0.5
    cells[half].copy().write_h5ad("a.h5ad")
    cells[~half].copy().write_h5ad("b.h5ad")
    assert run(["effects", "a.h5ad", "-o", "a.parquet"]) == 0
    words = ["train-vcc", "b.h5ad", "--model", "gp", "--prior-effects", "a.parquet", "--json"]
    capsys.readouterr()
    assert run(words) == 0
    said = capsys.readouterr()
    assert "a.parquet: effects of 12 perturbations, 12 of them in this screen" in said.err
    held = json.loads(said.out)["held_out"]
    assert held["gp"]["delta_correlation"] > held["ridge"]["delta_correlation"]
    assert run(["features", "a.parquet", "-o", "tables"]) == 0
    assert "the effects of 12 perturbations" in capsys.readouterr().err
