"""AUC, intervals, calibration and verdicts against slow, simple versions and known answers."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pytest

from vcell.patients import pictures, scores
from vcell.patients.scores import PatientJudge


def _told(score):
    return np.stack([1 - score, score], 1)


def test_the_auc_counts_pairs_of_one_fold_ties_for_a_half():
    rng = np.random.default_rng(0)
    outcome, fold = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    score = rng.integers(0, 5, 40) / 5
    right = pairs = 0.0
    for i in range(40):
        for j in range(40):
            if outcome[i] == 1 and outcome[j] == 0 and fold[i] == fold[j]:
                pairs += 1
                right += 1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
    assert PatientJudge(outcome, fold, 2).auc(_told(score)).value == pytest.approx(right / pairs)


def test_intervals_of_noise_hold_one_half_about_as_often_as_they_say():
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        outcome = rng.permutation(np.arange(60) % 2)
        one = PatientJudge(outcome, np.zeros(60, int), 2, seed).auc(_told(rng.random(60)))
        held += one.low <= 0.5 <= one.high
    assert held >= 50  # of 60; 57 on average


def test_one_pair_of_patients_in_another_order_is_no_difference():
    outcome = np.arange(40) % 2
    score = np.linspace(0, 1, 40) + outcome
    score[[1, 38]] = 0.8, 0.79
    other = score.copy()
    other[[1, 38]] = 0.79, 0.8
    gain = PatientJudge(outcome, np.zeros(40, int), 2).gain(_told(score), _told(other))
    assert gain.value > 0
    assert gain.low < 0 < gain.high


def test_clearly_better_and_worse_models_are_reported():
    rng = np.random.default_rng(1)
    outcome = np.arange(100) % 2
    good = _told(1 / (1 + np.exp(-(2 * outcome - 1 + rng.normal(0, 0.7, 100)))))
    poor = _told(rng.random(100))
    judge = PatientJudge(outcome, np.zeros(100, int), 2)
    assert scores.verdict(judge, "ours", {"ours": good, "theirs": poor})["claim"] == "beats"
    lost = scores.verdict(judge, "ours", {"ours": poor, "theirs": good})
    assert lost["claim"] == "worse"
    assert lost["text"].startswith("theirs beats ours")
    same = scores.verdict(judge, "ours", {"ours": good, "theirs": good})
    assert same["claim"] == "open"


def test_a_model_that_is_not_above_chance_beats_nobody():
    rng = np.random.default_rng(3)
    outcome = np.arange(60) % 2
    guessed, reversed_ = _told(rng.random(60)), _told(0.9 - 0.8 * outcome + rng.random(60) / 20)
    judge = PatientJudge(outcome, np.zeros(60, int), 2)
    told = scores.verdict(judge, "ours", {"ours": guessed, "theirs": reversed_})
    assert told["over"]["theirs"]["low"] > 0
    assert judge.auc(guessed).low < 0.5
    assert told["claim"] == "open"
    assert "not shown to be above chance" in told["text"]


@pytest.mark.parametrize("folds", [1, 2])
def test_a_perfect_order_of_few_patients_is_not_certain(folds):
    """Of 6 pairs without a common patient, all are right with probability AUC^6."""
    outcome, fold = np.repeat([0, 1], [10, 6]), np.tile(np.arange(folds), 16)[:16]
    judge = PatientJudge(outcome, fold, 2)
    right = judge.auc(_told(outcome * 0.8 + 0.1))
    assert (right.value, right.high) == (1, 1)
    assert right.low == pytest.approx(0.025 ** (1 / 6))
    wrong = judge.auc(_told(0.9 - outcome * 0.8))
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(1 - 0.025 ** (1 / 6))


def test_calibrated_probabilities_have_the_expected_error():
    rng = np.random.default_rng(2)
    p = rng.uniform(0, 1, 4000)
    outcome = (rng.random(4000) < p).astype(int)
    honest = PatientJudge(outcome, np.zeros(4000, int), 2).calibration(_told(p))
    assert honest["ece"] < 2 * honest["ece_expected"] < 0.05
    sure = PatientJudge(outcome, np.zeros(4000, int), 2).calibration(
        _told(np.where(p > 0.5, 0.99, 0.01))
    )
    assert sure["ece"] > 0.15


def test_three_outcomes_are_scored_each_against_the_rest():
    outcome = np.repeat([0, 1, 2], 10)
    perfect = np.eye(3)[outcome] * 0.8 + 0.2 / 3
    assert PatientJudge(outcome, np.zeros(30, int), 3).auc(perfect).value == 1


def test_rows_of_points_are_labelled_in_a_png():
    """matplotlib is not a dependency: the calls on its axes are recorded."""
    rows = [
        {"variant": name, "lost": {"low": -0.1, "value": at, "high": 0.2}}
        for name, at in (("without bulk", 0.0), ("one network", 0.1))
    ]
    axes = MagicMock()
    pictures.ablation(rows).draw(axes)
    axes.set_yticks.assert_called_once_with(range(2), ["without bulk", "one network"])
    drawn = [(*call.args, call.kwargs["markevery"]) for call in axes.plot.call_args_list]
    assert drawn == [([-0.1, 0.0, 0.2], [0] * 3, [1]), ([-0.1, 0.1, 0.2], [1] * 3, [1])]
    axes.legend.assert_not_called()
