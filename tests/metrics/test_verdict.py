"""A verdict that can be believed: what may be claimed, and how often it would be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from vcell.metrics import verdict
from vcell.metrics.verdict import difference, gains, judged, signed


def names(n: int) -> list[tuple[str, ...]]:
    return [(f"G{i}",) for i in range(n)]


def test_the_interval_is_students_where_differences_are_normal() -> None:
    for n in (5, 8, 30, 200):
        values = stats.norm.ppf((np.arange(n) + 0.5) / n) + 0.3
        found = difference(values, names(n))
        expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert found.mean == pytest.approx(values.mean())
        assert found.error == pytest.approx(stats.sem(values), rel=0.05)
        width = found.high - found.low
        assert width == pytest.approx(expected[1] - expected[0], rel=0.12)


@pytest.mark.parametrize("n", [5, 10, 30, 100])
@pytest.mark.parametrize("shape", ["normal", "skewed", "steps"])
def test_nineteen_of_twenty_intervals_hold_the_truth(n: int, shape: str) -> None:
    rng = np.random.default_rng([n, len(shape)])
    draw = {
        "normal": lambda: rng.normal(0.02, 0.1, n),
        "skewed": lambda: rng.exponential(0.1, n) - 0.08,
        "steps": lambda: rng.choice([-0.2, 0.0, 0.0, 0.2, 0.2], n) - 0.02,  # PDS among five
    }[shape]
    truth = 0.02
    held = [
        one.low - 1e-12 <= truth <= one.high + 1e-12
        for one in (difference(draw(), names(n)) for _ in range(200))
    ]
    # a skewed mean of five is beyond any interval; what counts is that none is far too short
    assert np.mean(held) >= (0.84 if shape == "skewed" and n <= 30 else 0.9)


def test_sets_that_share_genes_count_as_fewer() -> None:
    rng = np.random.default_rng(0)
    sets = [(f"HUB{i % 3}", f"G{i}") for i in range(30)]
    wrong_alone = wrong = 0
    for _ in range(200):
        hub, own = rng.normal(size=3), rng.normal(size=30)
        values = np.array([hub[i % 3] + own[i] for i in range(30)]) / 10
        wrong_alone += difference(values, names(30)).low > 0
        wrong += difference(values, sets).low > 0
    assert wrong < wrong_alone
    assert wrong <= 0.08 * 200  # three hubs: far from exact, and far better than nothing


def test_one_perturbation_in_two_contexts_is_one() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.2, 8)
    once = difference(values, names(8))
    twice = difference(np.repeat(values, 2), [name for name in names(8) for _ in range(2)])
    assert (twice.mean, twice.n) == (pytest.approx(once.mean), 8)
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.05)


def scores(rng: np.random.Generator, n: int, models: dict[str, float]) -> dict[str, dict]:
    """Scores of perturbations of which some are easier for every model than others."""
    easy = rng.normal(0, 0.15, n)
    found = {}
    for name, better in models.items():
        pds = np.clip(0.5 + better + easy + rng.normal(0, 0.2, n), 0, 1)
        mae = 0.03 * np.exp(rng.normal(0, 0.2, n) - easy - better)
        found[name] = {"pds": pds, "mae": mae}
    return found


@pytest.mark.parametrize("n", [5, 20, 60])
def test_of_forty_models_that_add_nothing_two_at_most_are_said_to_win(n: int) -> None:
    others = {"mean": 0.0, "perturbed-mean": 0.0, "ridge": 0.0}
    claims = [
        judged(
            "gp",
            gains(scores(np.random.default_rng([n, seed]), n, {**others, "gp": 0.0})),
            names(n),
        ).claim
        for seed in range(40)
    ]
    assert claims.count("beats") <= 2


def test_against_a_single_baseline_the_claim_is_wrong_in_one_of_forty() -> None:
    wrong = 0
    for seed in range(400):
        rng = np.random.default_rng([7, seed])
        found = gains(scores(rng, 25, {"mean": 0.0, "gp": 0.0}))
        wrong += judged("gp", found, names(25)).claim == "beats"
    assert wrong <= 400 * 0.025 + 3 * np.sqrt(400 * 0.025)


def test_a_model_that_is_better_is_found_out() -> None:
    found = gains(scores(np.random.default_rng(0), 60, {"mean": 0, "ridge": 0.02, "gp": 0.25}))
    said = judged("gp", found, names(60))
    assert said.claim == "beats"
    assert said.text.startswith(f"gp beats the baselines; the nearest is {said.nearest}: +")
    assert said.over["ridge"].low > 0
    assert said.over["mean"].low > 0


def test_to_beat_all_but_one_is_not_to_beat_the_baselines() -> None:
    found = gains(scores(np.random.default_rng(0), 60, {"mean": 0, "ridge": 0.25, "gp": 0.25}))
    said = judged("gp", found, names(60))
    assert said.claim == "open"
    assert said.over["mean"].low > 0
    assert said.text.startswith("no difference shown: gp over ridge")


def test_a_model_that_is_worse_is_called_worse() -> None:
    found = gains(scores(np.random.default_rng(0), 60, {"mean": 0.0, "ridge": 0.3, "gp": 0.0}))
    said = judged("gp", found, names(60))
    assert said.claim == "worse"
    assert said.text == f"gp is worse than ridge: {said.over['ridge']}"
    found = gains(
        scores(np.random.default_rng(0), 60, {"mean": 0.2, "ridge": 0.3, "knn": 0.4, "gp": 0.0})
    )
    said = judged("gp", found, names(60))
    assert said.text.startswith("gp is worse than mean and ridge and knn: -")
    assert said.text.endswith(" over knn")


def test_four_are_too_few_and_five_are_not() -> None:
    found = gains(scores(np.random.default_rng(0), 5, {"mean": 0.0, "gp": 0.9}))
    four = {name: one[:4] for name, one in found.items()}
    said = judged("gp", four, names(4))
    assert said.claim == "few"
    assert said.text == "too few for a verdict: 4 held-out perturbations, at least 5 are needed"
    assert said.plain()["over"]["mean"]["low"] is None
    assert judged("gp", found, names(5)).claim != "few"
    assert judged("gp", {n: one[:1] for n, one in found.items()}, names(1)).claim == "few"


def test_a_network_that_stayed_its_prior_adds_nothing() -> None:
    found = gains(scores(np.random.default_rng(0), 60, {"mean": 0.0, "gp": 0.3}))
    found["transformer"] = found["gp"] + 1e-13
    said = judged("transformer", found, names(60))
    assert said.claim == "same"
    assert said.text == "transformer adds nothing to gp, which beats the other baselines"


def test_nothing_is_claimed_of_what_is_there_to_be_beaten() -> None:
    found = gains(scores(np.random.default_rng(0), 20, {"mean": 0.0, "gp": 0.3}))
    assert judged("mean", found, names(20), weak=("mean",)).text == "the mean baseline"


def test_the_mean_of_gains_is_the_gain_of_means() -> None:
    found = scores(np.random.default_rng(3), 30, {"mean": 0.0, "gp": 0.2})
    mean = {name: {k: v.mean() for k, v in one.items()} for name, one in found.items()}
    base, own = mean["mean"], mean["gp"]
    expected = ((own["pds"] - base["pds"]) / (1 - base["pds"]) + 1 - own["mae"] / base["mae"]) / 2
    assert gains(found)["gp"].mean() == pytest.approx(expected)
    assert gains(found)["mean"].tolist() == [0] * 30


def test_it_is_the_same_every_time_and_goes_into_json() -> None:
    found = gains(scores(np.random.default_rng(0), 20, {"mean": 0.0, "gp": 0.3}))
    one, other = judged("gp", found, names(20)), judged("gp", found, names(20))
    assert one == other
    assert json.loads(json.dumps(one.plain()))["over"]["mean"]["n"] == 20
    assert [signed(x) for x in (0.0049, -0.02, 1.5, 0.0001)] == ["+.005", "-.020", "+1.500", "0"]
    assert str(verdict.Difference(0.005, -0.02, 0.03, 0.01, 9)) == "+.005 (-.02 to +.03)"


def test_an_end_that_is_not_zero_does_not_look_like_zero() -> None:
    assert str(verdict.Difference(0.063, 0.0031, 0.13, 0.03, 9)) == "+.063 (+.003 to +.13)"
    assert str(verdict.Difference(0.063, -0.00004, 0.13, 0.03, 9)) == "+.063 (-.00004 to +.13)"
    assert str(verdict.Difference(0.0003, 0.0001, 0.001, 0.01, 9)) == "+.0003 (+.0001 to +.001)"
    assert str(verdict.Difference(0.0, 0.0, 0.0, 0.0, 9)) == "0 (0 to 0)"


def test_the_same_targets_in_another_order_are_counted_once() -> None:
    found = gains(scores(np.random.default_rng(0), 6, {"mean": 0.0, "gp": 0.9}))
    targets = [("A", "B"), ("B", "A"), ("C",), ("D",), ("E",), ("E",)]
    assert judged("gp", found, targets).text.startswith("too few for a verdict: 4 held-out")
