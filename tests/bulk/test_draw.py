"""Who is drawn: exactly n cells, none without a label, none of another group, and by which law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vcell.bulk.draw import BLOCK, Drawn, Sampling, draws, rare_types, whole_numbers
from vcell.bulk.pools import Pools
from vcell.errors import UserError

TYPES = ("B", "NK", "T", "mono")


def drawn(pools: Pools, **settings: object) -> Drawn:
    return Drawn.joined(list(draws(pools, Sampling(**settings))))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pools() -> Pools:
    """Four types of 40 to 160 cells, every tenth cell unlabelled."""
    rng = np.random.default_rng(0)
    types = rng.choice(4, 440, p=[0.1, 0.2, 0.3, 0.4])
    types[::10] = -1
    return Pools.of(types, TYPES)


def patients() -> Pools:
    """Three patients of two splits; the second patient has no NK cells, the third only T."""
    rng = np.random.default_rng(1)
    by, split = rng.integers(0, 3, 600), rng.integers(0, 2, 600)
    types = rng.integers(0, 4, 600)
    types[(by == 1) & (types == 1)] = 0
    types[by == 2] = 2
    by[:20] = -1
    return Pools.of(types, TYPES, by, ["p1", "p2", "p3"], split, ["test", "train"])


@pytest.mark.parametrize("mode", ["dirichlet", "sparse", "rare", "own"])
@pytest.mark.parametrize("make", ["pools", "patients"])
def test_labels_are_the_cells_that_were_drawn(request, mode, make):
    pools = patients() if make == "patients" else request.getfixturevalue("pools")
    got = drawn(pools, samples=40, cells=77, mode=mode, seed=3)
    group, label = pools.codes()
    assert got.cells.shape == (40 * len(pools.groups), 77)
    assert (np.diff(got.cells, axis=1) >= 0).all()
    assert (group[got.cells] == got.group[:, None]).all()  # also: none without a label
    counted = [np.bincount(row, minlength=4) for row in label[got.cells]]
    assert (np.array(counted) == got.of_type).all()
    assert (got.of_type.sum(1) == 77).all()
    assert np.allclose(got.fractions.sum(1), 1)
    assert (got.of_type[pools.sizes[got.group] == 0] == 0).all()  # what a patient lacks


def test_groups_are_pairs_of_patient_and_split_and_missing_values_are_left_out():
    pools = patients()
    names = ["p1/test", "p1/train", "p2/test", "p2/train", "p3/test", "p3/train"]
    assert [group.name for group in pools.groups] == names
    assert pools.ungrouped == 20
    assert pools.unlabelled == 0
    assert pools.sizes.sum() == 580


def test_asking_for_more_samples_changes_none_of_the_first(pools):
    few, many = (drawn(pools, samples=n, cells=50, seed=5) for n in (7, 3 * BLOCK + 1))
    assert (many.cells[:7] == few.cells).all()
    other = drawn(pools, samples=7, cells=50, seed=6)
    assert (other.cells != few.cells).any()


def test_flat_fractions_are_those_of_a_dirichlet(pools):
    """Multinomial counts of a uniform Dirichlet: each type's count is beta-binomial."""
    got = drawn(pools, samples=4000, cells=400)
    for k in range(4):
        seen = np.bincount(got.of_type[:, k] // 40, minlength=11)
        edges = np.append(np.arange(0, 401, 40), 401)
        law = np.diff(stats.betabinom(400, 1, 3).cdf(edges - 1))
        keep = law * 4000 >= 5
        expected = np.append(law[keep], law[~keep].sum()) * 4000
        counted = np.append(seen[keep], seen[~keep].sum())
        if expected[-1] < 5:
            expected, counted = expected[:-1], counted[:-1]
            expected *= counted.sum() / expected.sum()
        assert stats.chisquare(counted, expected).pvalue > 1e-4


def test_every_cell_of_a_type_is_drawn_alike(pools):
    got = drawn(pools, samples=800, cells=200)
    _, label = pools.codes()
    times = np.bincount(got.cells.ravel(), minlength=pools.n_cells)
    assert (times[label < 0] == 0).all()
    for k in range(4):
        assert stats.chisquare(times[label == k]).pvalue > 1e-4


def test_own_prior_has_the_groups_own_composition_on_average(pools):
    got = drawn(pools, samples=2000, cells=100, prior="own", concentration=5)
    own = pools.sizes[0] / pools.sizes.sum()
    assert np.abs(got.fractions.mean(0) - own).max() < 0.02
    fixed = drawn(pools, samples=200, cells=2000, mode="own")
    assert np.abs(fixed.fractions - own).max() < 5 * np.sqrt(0.25 / 2000)


def test_sparse_samples_lack_the_share_of_types_that_was_asked_for(pools):
    got = drawn(pools, samples=2000, cells=2000, mode="sparse", sparse_samples=0.3)
    lacking = (got.of_type == 0).sum(1) >= 2
    assert stats.binomtest(int(lacking.sum()), 2000, 0.3).pvalue > 1e-4
    all_but_one = drawn(
        pools, samples=50, cells=20, mode="sparse", sparse_samples=1, sparse_types=1
    )
    assert ((all_but_one.of_type > 0).sum(1) == 1).all()


def test_rare_types_stay_below_their_bound_and_are_uniform_there(pools):
    how = {"mode": "rare", "rare": ("NK",), "rare_most": 0.1, "cells": 2000}
    got = drawn(pools, samples=1500, rare_samples=1, **how)
    share = got.fractions[:, 1]
    # counts of uniform fractions are uniform but for the binomial's own width
    assert stats.kstest(share, stats.uniform(0, 0.1).cdf).statistic < 0.05
    some = drawn(pools, samples=1500, rare_samples=0.5, **how).fractions[:, 1]
    above = 0.5 * stats.beta(1, 3).sf(0.12)
    assert abs((some > 0.12).mean() - above) < 0.06
    chosen = rare_types(pools, Sampling(mode="rare", rare_types=0.5, seed=4))
    assert chosen.sum() == 2
    assert (chosen == rare_types(pools, Sampling(mode="rare", rare_types=0.5, seed=4))).all()


def test_a_type_without_a_fraction_is_never_drawn_whatever_rounding_leaves():
    """numpy gives the remainder to the last type: here one without a fraction."""
    shares = np.array([[0.3, 0.7 - 1e-13, 0.0], [0.0, 1 - 1e-13, 0.0]])
    numbers = whole_numbers(np.tile(shares, (500, 1)), 100_000, np.random.default_rng(0))
    assert (numbers[:, 2] == 0).all()
    assert (numbers[1::2, 0] == 0).all()
    assert (numbers.sum(1) == 100_000).all()


def test_one_type_one_cell_and_tiny_concentrations_work():
    single = Pools.of(np.array([0, -1]), ["only"])
    for mode in ("dirichlet", "sparse", "rare", "own"):
        got = drawn(single, samples=3, cells=5, mode=mode)
        assert (got.cells == 0).all()
    tiny = drawn(patients(), samples=40, cells=10, mode="sparse", concentration=1e-3)
    assert (tiny.of_type.sum(1) == 10).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rare": ("Treg",)}, "'Treg'"),
        ({"rare": TYPES, "rare_most": 0.25}, "leave nothing"),
    ],
)
def test_rare_types_that_cannot_be_are_refused(pools, settings, words):
    with pytest.raises(UserError, match=words):
        drawn(pools, mode="rare", **settings)


@pytest.mark.parametrize(
    "settings",
    [{"samples": 0}, {"cells": 0}, {"mode": "other"}, {"sparse_types": 2}, {"concentration": 0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError):
        Sampling(**settings)
