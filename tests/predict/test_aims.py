"""The aims of the strength, and the report of its effects."""

from __future__ import annotations

import numpy as np
import pytest
from vcell_predict.strength.aims import CalledGenes, LeftOut


def left_out(shrunk: float, noise: float = 0.05, seed: int = 0) -> LeftOut:
    """Effects predicted too small by a factor, plus noise."""
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(20, 100)) * 0.3
    effect = shrunk * real + noise * rng.normal(size=real.shape)
    target = np.full(20, -1)
    return LeftOut(effect, real, target, float(np.abs(real).mean()))


def test_for_mae_it_undoes_the_models_shrinkage():
    assert left_out(0.5, 0.01).best("mae") == pytest.approx(2, rel=0.1)
    assert left_out(1.0, 0.01).best("mae") == pytest.approx(1, rel=0.1)
    assert left_out(2.0, 0.01).best("mae") == pytest.approx(0.5, rel=0.1)


def test_for_pds_it_is_the_most_discriminating_strength():
    found = left_out(0.1, 0.2)
    best = found.best("pds")
    scores = [found.scores(s)["pds"] for s in (0.25, 1.0, 4.0)]
    assert found.scores(best)["pds"] >= max(scores)


def test_overall_stops_before_the_error_is_above_the_baselines():
    found = left_out(0.8, 0.1)  # it tells all of them apart as it is
    assert found.scores(1.0)["pds"] == 1
    assert found.scores(4.0)["mae"] > found.baseline > found.scores(1.0)["mae"]
    share = found.share_for_des(4.0)
    assert share < 1
    assert found.scores(4.0**share)["mae"] <= found.baseline


def test_overall_is_the_full_strength_if_pds_and_des_gain_more_than_mae_loses():
    rng = np.random.default_rng(1)
    shift = 0.3 * rng.normal(size=100)  # shared by all, and predicted: only strength tells apart
    real = shift + 0.3 * rng.normal(size=(20, 100))
    effect = shift + 0.1 * (real - shift)
    found = LeftOut(effect, real, np.full(20, -1), float(np.abs(real).mean()))
    assert found.scores(1.2)["pds"] >= found.scores(1.0)["pds"]
    assert found.share_for_des(1.05) == 1


def test_an_error_above_the_baselines_is_reported():
    assert "ABOVE the official baseline's" in left_out(0.0, 1.0).note(2.0)
    assert "below the official baseline's" in left_out(1.0, 0.01).note(1.0)


def test_des_is_the_share_of_changed_genes_that_are_called_by_fold_change_if_too_many():
    real = np.zeros((2, 6), bool)
    real[0, [0, 1, 2]] = True  # nothing changes in the second
    z = np.array([[9.0, 2.0, 0, 9, 0, 0], [0, 0, 0, 0, 0, 9]])
    effect = np.array([[0.5, -0.1, 0, 0.9, 0, 0], [0] * 6])
    tested = CalledGenes(real, z, effect, np.ones((2, 6)))
    assert tested.des(1.0) == pytest.approx(1 / 3 / 2)  # 0 and 3 are called, 1 is not
    assert tested.des(4.0) == pytest.approx(2 / 3 / 2)  # 0, 1 and 3 are
    wide = CalledGenes(real, np.full((2, 6), 9.0), np.arange(12.0).reshape(2, 6), np.ones((2, 6)))
    assert wide.des(1.0) == 0  # of six that are called the three largest count: 3, 4 and 5
    found = left_out(0.8)
    with_cells = LeftOut(found.effect, found.real, found.target, found.baseline, (), tested)
    assert "DES 0.167 -> 0.333 (on 2 of them)" in with_cells.note(4.0)
    assert "DES is not known" in found.note(4.0)


def test_the_command_reports_the_effect_of_strengths_and_has_an_aim(predict):
    lines = predict("--n-cells", 40, "--for", "mae").out
    assert "perturbations left out: PDS" in lines
    assert "the official baseline's" in lines
    assert ", DES 0." in lines
