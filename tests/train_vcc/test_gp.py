"""The closed form of gp against refits: left-out effects enter nothing, not even the mean."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from vcell_train_vcc.closed.baselines import Neighbours, Ridge, _judge
from vcell_train_vcc.closed.chosen import FILE
from vcell_train_vcc.closed.gp import GaussianProcess, KernelSettings
from vcell_train_vcc.closed.interactions import Interactions

from vcell.models import Screen
from vcell.models.left_out import numbered


@pytest.fixture(scope="module")
def screen():
    rng = np.random.default_rng(0)
    names = np.array([*"ABCDEFGH", "A+B", "C+D", "B+E"])
    p, n = len(names), 12
    return Screen(
        genes=np.array([f"g{i}" for i in range(n)]),
        contexts=np.array(["all"]),
        control=np.ones((1, n), np.float32),
        perturbations=names,
        context=np.zeros(p, np.int64),
        part=np.zeros(p, np.int8),
        cells=np.full(p, 50),
        delta=(1 + rng.normal(size=(p, n))).astype(np.float32),
        noise=np.full(p, 0.01, np.float32),
        feature_genes=np.array(list("ABCDEFGH")),
        features=rng.normal(size=(8, 3)).astype(np.float32),
        target_sum=1e4,
    )


@pytest.fixture(scope="module")
def fitted(screen):
    return GaussianProcess(screen)


def test_a_run_chooses_its_settings_once(screen, fitted, tmp_path, monkeypatch):
    run = SimpleNamespace(path=tmp_path)
    assert GaussianProcess(screen, run).settings == fitted.settings
    chosen: list[str] = []
    choose = GaussianProcess._chosen
    monkeypatch.setattr(
        GaussianProcess, "_chosen", lambda self: chosen.append("anew") or choose(self)
    )
    again = GaussianProcess(screen, run)
    assert again.settings == fitted.settings
    assert np.array_equal(again.predict(["A+D", "B"]), fitted.predict(["A+D", "B"]))
    assert not chosen
    # another screen, and a file that says nothing, are chosen for
    GaussianProcess(replace(screen, delta=screen.delta * 2), run)
    assert len(chosen) == 1
    for damaged in ("", "[]", (tmp_path / FILE).read_text().replace("[", "{", 1)):
        (tmp_path / FILE).write_text(damaged)
        assert GaussianProcess(screen, run).settings == fitted.settings
    assert len(chosen) == 4


@pytest.fixture(scope="module")
def twice(screen):
    """The same perturbations in a second context, except the last two."""
    rng, rows = np.random.default_rng(4), [*range(11), *range(9)]
    return replace(
        screen, contexts=np.array(["one", "two"]), control=np.ones((2, 12), np.float32),
        perturbations=screen.perturbations[rows], context=np.repeat([0, 1], [11, 9]),
        part=np.zeros(20, np.int8), cells=np.full(20, 50), noise=np.full(20, 0.01, np.float32),
        delta=(screen.delta[rows] + rng.normal(size=(20, 12))).astype(np.float32),
    )  # fmt: skip


def rest_of(number):
    """Yield each group, and all others."""
    return [(np.flatnonzero(number == one), np.flatnonzero(number != one)) for one in set(number)]


@pytest.mark.parametrize("by", ["target", "fold"])
@pytest.mark.parametrize("centred", [True, False])
def test_leaving_a_target_out_of_all_contexts_equals_learning_without_it(twice, centred, by):
    fitted = GaussianProcess(twice)
    setting = KernelSettings(0, 0.0, 0.3, 0.3, 1.0, 0.1, centred)
    fitted.settings = [setting]
    number = fitted.together if by == "target" else fitted.together % 3
    some = np.flatnonzero(number > 0)
    closed, few = fitted._solve((number, None), (number[some], some))
    np.testing.assert_allclose(few, closed[some], atol=1e-9)
    kernel, delta = fitted.kernel.of(setting), fitted.delta
    assert len(rest_of(number)) == (11 if by == "target" else 3)
    for group, rest in rest_of(number):
        mean = delta[rest].mean(axis=0) * centred
        noisy = kernel[np.ix_(rest, rest)] + setting.noise * np.eye(len(rest))
        refit = mean + kernel[np.ix_(group, rest)] @ np.linalg.solve(noisy, delta[rest] - mean)
        np.testing.assert_allclose(closed[group], refit, atol=1e-9)


def test_ridge_leaves_a_target_out_of_all_contexts(twice):
    names, penalty = twice.perturbations.tolist(), 0.3
    model, judge, number = Ridge(twice), _judge(twice, np.arange(20)), numbered(names)
    x, y = model._inputs(names), twice.denoised(np.arange(20))[:, judge.genes]
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    closed = model._left_out(u, s, y - model.mean[judge.genes], penalty, judge, number)
    for group, rest in rest_of(number):
        centre, mean = x[rest].mean(axis=0), y[rest].mean(axis=0)
        apart = x[rest] - centre
        weights = np.linalg.solve(apart.T @ apart + penalty * np.eye(3), apart.T @ (y[rest] - mean))
        refit = mean + (x[group] - centre) @ weights
        np.testing.assert_allclose(closed[group], refit, atol=1e-8)


def test_a_neighbour_is_never_the_same_target_in_another_context(twice, monkeypatch):
    asked: list[np.ndarray] = []
    near = Neighbours._of
    monkeypatch.setattr(
        Neighbours, "_of", lambda self, rows, genes: asked.append(rows) or near(self, rows, genes)
    )
    Neighbours(twice)
    names = twice.perturbations
    assert max(some.shape[1] for some in asked) == 12
    for some in asked:
        assert (names[some] != names[:, None]).all()


def test_a_set_is_the_sum_of_single_effects_plus_half_the_interaction_of_a_similar_set(fitted):
    # of the training sets C+D shares one of its two targets with A+D, and so does none but A+B
    alone = {name: fitted.delta[fitted.names.index(name)] for name in "ABCDE"}
    beyond = {
        name: fitted.delta[fitted.names.index(name)] - alone[name[0]] - alone[name[2]]
        for name in ("A+B", "C+D", "B+E")
    }
    kernel = np.array([[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]])
    weights = np.linalg.solve(kernel + np.eye(3), np.array([*beyond.values()]))
    expected = alone["A"] + alone["D"] + np.array([0.5, 0.5, 0]) @ weights
    np.testing.assert_allclose(fitted.predict(["A+D"])[0], expected, rtol=1e-5)


def test_training_sets_left_out_are_predicted_as_if_never_seen(fitted):
    row = fitted.names.index("C+D")  # shares no target with the others: the sum alone is left
    alone = fitted.delta[fitted.names.index("C")] + fitted.delta[fitted.names.index("D")]
    np.testing.assert_allclose(fitted.loo()[row], alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("interaction", "chosen"), [(0.0, np.inf), (1.0, 0.25)], ids=["additive", "shared"]
)
def test_many_sets_choose_the_shrinkage_of_interactions(interaction, chosen):
    rng = np.random.default_rng(1)
    genes = [*"ABCDEFGH"]
    pairs = [f"{a}+{b}" for a, b in itertools.combinations(genes, 2)]
    effect = {gene: rng.normal(size=40) for gene in genes}
    extra = {gene: interaction * rng.normal(size=40) for gene in genes}
    delta = np.array(
        [effect[gene] for gene in genes]
        + [
            sum(effect[gene] + extra[gene] for gene in pair.split("+"))
            + 0.3 * rng.normal(size=40) * (interaction == 0)
            for pair in pairs
        ]
    )
    found = Interactions([*genes, *pairs], delta, np.zeros_like(delta))
    assert found.shrinkage == chosen


def test_the_process_over_all_perturbations_is_used_if_sums_mislead():
    rng = np.random.default_rng(2)
    genes = [*"ABCDEFGH"]
    pairs = [f"{a}+{b}" for a, b in itertools.combinations(genes, 2)]
    delta = rng.normal(size=(len(genes) + len(pairs), 40))
    found = Interactions([*genes, *pairs], delta, delta + 0.01)
    assert not found.covers(["A+B"]).any()


def singles(screen, told, seed):
    """Thirty perturbations of one target each, whose effects follow the features or not."""
    rng, p = np.random.default_rng(seed), 30
    names = np.array([f"P{i}" for i in range(p)])
    features = rng.normal(size=(p, 4)).astype(np.float32)
    delta = told * features @ rng.normal(size=(4, 40)) + rng.normal(size=(p, 40))
    return replace(
        screen, perturbations=names, feature_genes=names, features=features,
        delta=delta.astype(np.float32), genes=np.array([f"g{i}" for i in range(40)]),
        control=np.ones((1, 40), np.float32), context=np.zeros(p, np.int64),
        part=np.zeros(p, np.int8), cells=np.full(p, 50), noise=np.ones(p, np.float32),
    )  # fmt: skip


def test_predictions_are_used_if_left_out_effects_support_them(screen):
    found = [GaussianProcess(singles(screen, 1.0, seed)) for seed in range(3)]
    assert all(model.beyond * model.belief > 0.7 for model in found)


def test_noise_is_mostly_predicted_as_no_change(screen):
    found = [GaussianProcess(singles(screen, 0.0, seed)) for seed in range(5)]
    silent = [model for model in found if model.belief == 0]
    assert len(silent) >= 2  # a third of such screens are believed by luck
    assert not silent[0].predict(["P0", "P3"]).any()


def test_the_common_effect_is_predicted_with_uninformative_features(screen):
    shared = singles(screen, 0.0, 0)
    shared = replace(shared, delta=shared.delta + np.linspace(-2, 2, 40, dtype=np.float32))
    said = GaussianProcess(shared).predict(["P0", "P3"])
    for one in said:
        assert np.corrcoef(one, shared.delta.mean(axis=0))[0, 1] > 0.8


def test_a_block_with_few_targets_changes_nothing(screen):
    alone = singles(screen, 1.0, 0)
    few = np.zeros((30, 3), np.float32)
    few[:4] = np.random.default_rng(9).normal(size=(4, 3))
    both = replace(
        alone,
        features=np.concatenate([alone.features, few], axis=1),
        blocks=np.array(["telling", "few"]),
        widths=np.array([4, 3]),
    )
    names = [f"P{i}" for i in range(8)]
    fitted = GaussianProcess(both)
    assert fitted.blocks["few"] == 0
    assert np.allclose(fitted.predict(names), GaussianProcess(alone).predict(names), atol=1e-5)
