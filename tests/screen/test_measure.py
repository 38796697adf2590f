"""From cells to a screen: effects against matched controls, features that know no held-out cell."""

from __future__ import annotations

import numpy as np
import pytest
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.closed.baselines import perturbed_mean, ridge

from vcell.data import labels, open_cells
from vcell.data.log_cells import LogCells
from vcell.data.simulate import CONTROL, simulate
from vcell.models.scoring import gain, scores
from vcell.screen import features, measure
from vcell.screen.design import Design
from vcell.screen.split import TEST, TRAIN, VALIDATION, split


def screen_of(adata, **settings):
    source = open_cells(adata)
    columns = Design.read(source, labels.find(source, quiet=True))
    return measure.screen_of(LogCells(source, "counts", 1e4), columns, TrainVcc(**settings))


def log1p_cells(adata):
    counts = adata.X.toarray().astype(np.float64)
    return np.log1p(counts * 1e4 / counts.sum(axis=1, keepdims=True))


def test_effects_are_differences_to_controls_of_the_same_batch(simulator):
    adata = simulator.to_anndata()
    screen = screen_of(adata, controls="shared")
    x = log1p_cells(adata)
    name, batch = adata.obs["target_gene"].to_numpy(), adata.obs["batch"].to_numpy()
    for p, perturbation in enumerate(screen.perturbations):
        own = np.flatnonzero(name == perturbation)
        matched = np.array([x[(name == CONTROL) & (batch == batch[i])].mean(axis=0) for i in own])
        assert np.allclose(screen.delta[p], (x[own] - matched).mean(axis=0), atol=1e-5)
        assert screen.cells[p] == len(own)
    assert np.allclose(screen.control[0], x[name == CONTROL].mean(axis=0), atol=1e-5)


def test_held_out_and_learnt_effects_have_controls_of_their_own(simulator):
    adata = simulator.to_anndata()
    adata.obs["batch"] = "one"
    screen, x, name = screen_of(adata), log1p_cells(adata), adata.obs["target_gene"].to_numpy()
    mean = np.array([x[name == one].mean(axis=0) for one in screen.perturbations])
    compared = mean - screen.delta  # what each was compared with
    held = screen.part == TEST
    first, second = compared[held], compared[~held]
    assert np.allclose(first, first[0], atol=1e-5)
    assert np.allclose(second, second[0], atol=1e-5)
    n = (name == CONTROL).sum()
    both = ((n + 1) // 2 * first[0] + n // 2 * second[0]) / n
    assert np.allclose(both, x[name == CONTROL].mean(axis=0), atol=1e-5)
    assert np.abs(first[0] - second[0]).max() > 0.01
    # and so have the halves of the cells of those held out
    a, b = screen.halves
    sizes = screen.cells[held][:, None]
    whole = ((sizes + 1) // 2 * (a + first[0]) + sizes // 2 * (b + second[0])) / sizes
    assert np.allclose(whole, mean[held], atol=1e-5)


@pytest.fixture(scope="module")
def nothing():
    """Cells of one kind dealt to 40 perturbations and 40 controls: nothing has an effect."""
    adata = simulate(cells=4000, genes=200, perturbations=40, seed=3)
    name = adata.obs["target_gene"].astype(str).to_numpy()
    control = np.flatnonzero(name == CONTROL)
    few = np.random.default_rng(0).permutation(control)
    name[few[40:]] = np.random.default_rng(1).choice(sorted(set(name) - {CONTROL}), len(few) - 40)
    name[few[:40]] = CONTROL
    adata = adata[np.isin(np.arange(len(name)), control)].copy()
    adata.obs["target_gene"] = name[control]
    adata.obs["batch"] = "one"
    return adata


def test_noise_of_controls_is_no_effect(nothing):
    found = {}
    for controls in ("halves", "shared"):
        screen = screen_of(nothing, controls=controls, min_cells=5, expression_features=True)
        rows = screen.rows(TEST)
        guess = perturbed_mean.load(None, screen).predict(screen.perturbations[rows].tolist())
        found[controls] = scores(guess, screen.delta[rows], np.full(len(rows), -1))
    assert found["shared"]["delta_correlation"] > 0.3
    assert abs(found["halves"]["delta_correlation"]) < 0.15


@pytest.mark.parametrize("batches", [1, 16])  # of 40 controls: one or two in a half of each batch
def test_noise_is_as_large_as_effects_of_nothing(nothing, batches):
    cells = nothing.copy()
    drawn = np.random.default_rng(0).integers(batches, size=cells.n_obs)
    cells.obs["batch"] = [f"b{i}" for i in drawn]
    size, told = [], []
    for seed in range(8):
        screen = screen_of(cells, min_cells=5, seed=seed)
        size.append(np.square(screen.delta).mean(axis=1))
        told.append(screen.noise)
    assert np.mean(size) == pytest.approx(np.mean(told), rel=0.15)


def test_what_is_likely_noise_of_controls_is_not_learnt(nothing, simulator):
    screen = screen_of(nothing, min_cells=5)
    learnt, held = screen.rows(TRAIN), screen.rows(TEST)
    before = np.square(screen.delta[learnt].mean(axis=0)).sum()
    assert np.square(screen.denoised(learnt).mean(axis=0)).sum() < 0.15 * before
    assert np.array_equal(screen.denoised(held), screen.delta[held])
    # all effects move alike, so that what tells them apart stays
    apart = screen.delta[learnt] - screen.denoised(learnt)
    assert np.allclose(apart, apart[0], atol=1e-6)
    # nor is there any to take off where scored effects have the same
    shared = screen_of(nothing, min_cells=5, controls="shared")
    assert np.array_equal(shared.denoised(learnt), shared.delta[learnt])
    # an effect that all perturbations have is kept
    strong = simulator.to_anndata()
    genes = np.random.default_rng(0).permutation(strong.n_vars)[:60]
    x = strong.X.toarray()
    x[np.ix_(np.flatnonzero(strong.obs["target_gene"] != CONTROL), genes)] *= 3
    strong.X = x
    screen = screen_of(strong)
    learnt = screen.rows(TRAIN)
    assert np.allclose(screen.denoised(learnt), screen.delta[learnt], atol=0.05)


def test_all_controls_are_there_to_learn_from_if_nothing_is_held_out(nothing):
    halved, whole = screen_of(nothing, min_cells=5), screen_of(nothing, min_cells=5, test_share=0.0)
    assert not len(whole.rows(TEST))
    assert whole.control_noise[0] == pytest.approx(halved.control_noise[0] / 2, rel=0.2)
    x, name = log1p_cells(nothing), nothing.obs["target_gene"].to_numpy()
    compared = x[name == whole.perturbations[0]].mean(axis=0) - whole.delta[0]
    assert np.allclose(compared, x[name == CONTROL].mean(axis=0), atol=1e-5)


def test_nothing_learnt_depends_on_the_cells_held_out(simulator):
    adata = simulator.to_anndata()
    before = screen_of(adata)
    held = before.perturbations[before.part == TEST]
    assert len(held) == round(0.2 * len(before.perturbations))
    rows = np.flatnonzero(adata.obs["target_gene"].isin(held))
    counts = adata.X.toarray()
    rng = np.random.default_rng(0)
    counts[rows] = rng.poisson(2.0, (len(rows), counts.shape[1]))
    adata.X = counts
    after = screen_of(adata)
    kept = before.part != TEST
    assert np.array_equal(before.part, after.part)
    assert np.array_equal(before.features, after.features)
    assert np.array_equal(before.delta[kept], after.delta[kept])
    assert not np.allclose(before.delta[~kept], after.delta[~kept])


def test_loadings_are_those_of_a_dense_decomposition(simulator):
    adata = simulator.to_anndata()
    adata = adata[:, np.argsort(-adata.X.sum(axis=0).A1)[:14]].copy()  # 6 + 8 spare: exact
    cells = LogCells(open_cells(adata), "counts", 1e4)
    rows = np.arange(0, adata.n_obs, 2)
    batch = adata.obs["batch"].cat.codes.to_numpy(np.int64)
    seen = np.ones(adata.n_vars, bool)
    found = features.covariance_loadings(cells, rows, batch, seen, rank=6, seed=0)
    x, b = log1p_cells(adata)[rows], batch[rows]
    for i in range(2):
        x[b == i] -= x[b == i].mean(axis=0)
    x /= np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    reference = vt[:6].T * s[:6] / np.sqrt(len(rows))
    assert np.allclose(found @ found.T, reference @ reference.T, atol=1e-4)


def test_components_come_from_the_genes_seen_and_every_gene_has_loadings(simulator):
    adata = simulator.to_anndata()
    cells = LogCells(open_cells(adata), "counts", 1e4)
    seen = np.zeros(adata.n_vars, bool)
    seen[np.argsort(-adata.X.sum(axis=0).A1)[:12]] = True  # 4 + 8 spare: exact
    rows, batch = np.arange(adata.n_obs), np.zeros(adata.n_obs, np.int64)
    found = features.covariance_loadings(cells, rows, batch, seen, rank=4, seed=0)
    x = log1p_cells(adata)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    u, _, _ = np.linalg.svd(x[:, seen], full_matrices=False)
    correlation = x.T @ u[:, :4] / np.sqrt(len(x))
    assert np.allclose(found @ found.T, correlation @ correlation.T, atol=1e-4)


def test_a_targets_own_knock_down_is_no_feature():
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(8, 40)).astype(np.float32)
    target = np.arange(8)
    other = delta.copy()
    other[np.arange(8), target] = -9
    mean_free = [d - d.mean(axis=0) for d in (delta, other)]
    for d in mean_free:
        d[np.arange(8), target] = 0
    a = features.response_loadings(delta, target, 4)
    assert a.shape == (40, 4)
    assert np.allclose(a @ a.T, _projected(mean_free[0], 4), atol=1e-5)


def _projected(centred, rank):
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    loading = vt[:rank].T * s[:rank] / np.sqrt(len(centred))
    return loading @ loading.T


def test_ridge_learns_unseen_effects_from_features_and_nothing_from_shuffled_ones():
    screen = screen_of(simulate(cells=6000, genes=600, perturbations=80, seed=2))
    rows = screen.rows(TEST)
    names = screen.perturbations[rows].tolist()
    target = screen.targets(names)

    def score(model, of):
        return scores(model.load(None, of).predict(names), screen.delta[rows], target)

    baseline = score(perturbed_mean, screen)
    assert gain(score(ridge, screen), baseline) > 0.3
    shuffled = np.random.default_rng(0).permutation(screen.features)
    fields = {f: getattr(screen, f) for f in screen.__dataclass_fields__}
    assert gain(score(ridge, type(screen)(**fields | {"features": shuffled})), baseline) < 0.15


def test_scores_are_those_of_the_challenge_and_a_gain_is_scaled_by_the_baseline():
    rng = np.random.default_rng(0)
    real = rng.integers(-2, 3, (12, 20)).astype(float)
    predicted = real + rng.integers(-2, 3, real.shape)
    target = rng.integers(0, 20, 12)
    total = 0.0
    for i in range(12):
        kept = np.arange(20) != target[i]
        d = np.array([np.abs(predicted[i, kept] - real[j, kept]).sum() for j in range(12)])
        total += 1 - np.mean([(d < d[i]).sum(), (d <= d[i]).sum() - 1]) / 12
    found = scores(predicted, real, target)
    assert found["pds"] == pytest.approx(total / 12)
    assert found["mae"] == pytest.approx(np.abs(predicted - real).mean())
    assert scores(np.zeros_like(real), real, target)["delta_correlation"] == 0
    base = {"pds": 0.5, "mae": 0.04}
    assert gain(base, base) == 0
    assert gain({"pds": 0.75, "mae": 0.03}, base) == pytest.approx((0.5 + 0.25) / 2)
    assert gain({"pds": 0.5, "mae": 0.06}, base) < 0


def test_parts_are_disjoint_named_or_drawn():
    names = [f"G{i}" for i in range(40)]
    part = split(names, test=None, test_share=0.25, validation_share=0.2, seed=1)
    assert [(part == k).sum() for k in (TRAIN, VALIDATION, TEST)] == [24, 6, 10]
    named = split(names, test=["G3", "G9"], test_share=0.9, validation_share=0.2, seed=1)
    assert set(np.flatnonzero(named == TEST)) == {3, 9}
    again = split(names, test=None, test_share=0.25, validation_share=0.2, seed=1)
    assert np.array_equal(part, again)
