"""The simulator: cells follow its truth, with the same bits for any chunks."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import stats

from vcell.data import open_cells
from vcell.data.simulate import (
    CONTROL,
    SimulationDesign,
    SimulationTruth,
    Simulator,
    oracle,
    simulate,
)
from vcell.errors import UserError

PLAIN = {"depth_sd": 0.0, "activity_sd": 0.0, "batch_effect": 0.0}


def joined(sim, rows, threads=1):
    blocks = list(sim.blocks(rows=rows, threads=threads))
    return (
        np.concatenate([np.diff(b.indptr) for b in blocks]),
        np.concatenate([b.indices for b in blocks]),
        np.concatenate([b.data for b in blocks]),
    )


def test_the_same_bits_for_any_chunk_size_and_number_of_threads():
    sim = Simulator(cells=700, genes=150, perturbations=10)
    whole = joined(sim, 700)
    for rows, threads in ((1, 2), (37, 2), (512, 1)):
        for a, b in zip(whole, joined(sim, rows, threads), strict=True):
            assert np.array_equal(a, b)


def test_the_seed_decides_the_truth_and_the_draw_only_the_cells():
    small = {"cells": 200, "genes": 100, "perturbations": 9}
    first, same = simulate(**small, seed=3), simulate(**small, seed=3)
    assert (first.X != same.X).nnz == 0
    one, other = (Simulator(**small, draw=d) for d in (0, 1))
    assert np.array_equal(one.truth.effect, other.truth.effect)
    assert (one.to_anndata().X != other.to_anndata().X).nnz > 0
    assert not np.array_equal(
        Simulator(genes=100, perturbations=9, seed=1).truth.effect,
        Simulator(genes=100, perturbations=9, seed=2).truth.effect,
    )


def test_counts_follow_the_negative_binomial_of_the_truth():
    sim = Simulator(
        cells=40_000, genes=60, perturbations=4, control_fraction=0.5, batches=1, umis=4000, **PLAIN
    )
    adata = sim.to_anndata()
    labels = adata.obs["target_gene"].to_numpy()
    for code, name in enumerate(sim.labels):
        counts = adata.X[labels == name].toarray()
        effect = sim.truth.effect[code - 1] if code else 0.0
        mean = 4000 * sim.truth.base[0] * np.exp(effect) * sim.truth.batch_factor[0]
        variance = mean + mean**2 / sim.truth.size
        off = (counts.mean(axis=0) - mean) / np.sqrt(variance / len(counts))
        assert np.abs(off).max() < 4.5  # standard errors, over 300 comparisons
        frequent = mean > 0.5
        assert np.allclose(counts.var(axis=0)[frequent], variance[frequent], rtol=0.15)


def test_the_whole_distribution_is_negative_binomial():
    sim = Simulator(cells=30_000, genes=40, perturbations=2, umis=300, batches=1, **PLAIN)
    cells = np.asarray(sim.to_anndata().X[sim.codes(0, 30_000)[0] == 0].toarray())
    rejected = 0
    for g in range(40):
        mean = 300 * sim.truth.base[0, g] * sim.truth.batch_factor[0, g]
        law = stats.nbinom(sim.truth.size[g], sim.truth.size[g] / (sim.truth.size[g] + mean))
        top = max(int(law.ppf(0.99)), 1)
        seen = np.bincount(np.minimum(cells[:, g].astype(int), top), minlength=top + 1)
        expected = len(cells) * np.append(law.pmf(np.arange(top)), law.sf(top - 1))
        keep = expected > 5
        if keep.sum() > 1 and keep[0]:
            seen = np.append(seen[keep], seen[~keep].sum())[: keep.sum() + (~keep).any()]
            expected = np.append(expected[keep], expected[~keep].sum())[: len(seen)]
            rejected += stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue < 1e-3
    assert rejected <= 1


def test_spread_of_activities_and_depth_leaves_the_mean_as_the_truth_says():
    sim = Simulator(cells=40_000, genes=60, perturbations=4, batches=1, batch_effect=0.0)
    x = sim.to_anndata().X[sim.codes(0, 40_000)[0] == 0]
    mean = np.exp(sim.design.depth_sd**2 / 2) * 5000 * sim.truth.base[0]
    assert np.allclose(np.asarray(x.mean(axis=0)).ravel()[mean > 5], mean[mean > 5], rtol=0.08)


def test_null_perturbations_change_nothing_and_the_others_do():
    sim = Simulator(cells=30_000, genes=80, perturbations=6, null_fraction=0.5, **PLAIN)
    x, code = sim.to_anndata().X.toarray(), sim.codes(0, 30_000)[0]
    controls = x[code == 0]
    assert sim.truth.null.sum() == 3
    for p in range(6):
        cells = x[code == p + 1]
        difference = cells.mean(axis=0) - controls.mean(axis=0)
        error = np.sqrt(cells.var(axis=0) / len(cells) + controls.var(axis=0) / len(controls))
        z = np.abs(difference / error)
        if sim.truth.null[p]:
            assert not sim.truth.effect[p].any()
            assert z.max() < 4.5
        else:
            assert sim.truth.effect[p, sim.truth.target[p]] < 0 or z.max() > 6
            assert z.max() > 6


def test_a_target_is_knocked_down():
    sim = Simulator(genes=200, perturbations=10, effect=0.0, shared=0.0, knockdown=0.75)
    own = sim.truth.effect[np.arange(10), sim.truth.target]
    assert np.allclose(own[~sim.truth.null], np.log(0.25))
    assert np.count_nonzero(sim.truth.effect) == (~sim.truth.null).sum()


def test_unseen_effects_follow_from_the_targets_memberships():
    sim = Simulator(genes=2000, perturbations=100, knockdown=0.0)
    features = np.hstack([sim.truth.loadings[:, sim.truth.target].T, np.ones((100, 1))])
    active = ~sim.truth.null
    learnt, held = np.flatnonzero(active)[:60], np.flatnonzero(active)[60:]
    weights, *_ = np.linalg.lstsq(features[learnt], sim.truth.effect[learnt], rcond=None)
    assert np.allclose(features[held] @ weights, sim.truth.effect[held], atol=1e-8)


def test_labels_have_exact_shares_in_every_batch():
    sim = Simulator(cells=9000, genes=300, perturbations=20, batches=3, cell_types=2)
    perturbation, batch, cell_type = sim.codes(0, 9000)
    counts = np.bincount(perturbation)
    assert counts[0] == 1800
    assert set(counts[1:]) == {360}
    assert set(np.bincount(batch)) == {3000}
    assert set(np.bincount(cell_type)) == {4500}
    table = np.zeros((21, 3, 2))
    np.add.at(table, (perturbation, batch, cell_type), 1)
    assert table[1:].min() > 40
    assert table[1:].max() < 80


def test_cell_types_and_batches_differ_as_the_truth_says():
    sim = Simulator(
        cells=20_000, genes=50, perturbations=2, cell_types=2, batches=2, batch_effect=0.5
    )
    x, (code, batch, kind) = sim.to_anndata().X.toarray(), sim.codes(0, 20_000)
    for t in range(2):
        for b in range(2):
            seen = x[(code == 0) & (batch == b) & (kind == t)].mean(axis=0)
            share = sim.truth.base[t] * sim.truth.batch_factor[b]
            assert np.corrcoef(np.log(seen[share > 1e-3]), np.log(share[share > 1e-3]))[0, 1] > 0.99


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_file_holds_what_memory_holds_and_the_truth_lies_beside(tmp_path, suffix, compress):
    sim = Simulator(cells=1300, genes=120, perturbations=8, cell_types=2)
    path = tmp_path / f"cells.{suffix}"
    truth = sim.write(path, compress=compress)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "cells.truth.npz"}
    read = anndata.read_h5ad(path) if suffix == "h5ad" else anndata.read_zarr(path)
    made = sim.to_anndata()
    assert (read.X != made.X).nnz == 0
    assert read.obs.astype(str).equals(made.obs.astype(str))
    assert list(read.var_names) == list(made.var_names)
    with open_cells(path) as source:
        assert source.n_cells == 1300
    loaded = SimulationTruth.load(truth)
    assert np.array_equal(loaded.effect, sim.truth.effect)
    assert list(loaded.perturbations) == list(sim.truth.perturbations)


def test_the_oracle_draws_the_true_effect_in_other_cells():
    sim = Simulator(cells=3000, genes=200, perturbations=20)
    name = sim.truth.perturbations[int(np.argmax(np.abs(sim.truth.effect).sum(axis=1)))]
    best = oracle(sim, 1500, [name])
    assert set(best.obs["target_gene"]) == {CONTROL, name}
    means = [
        np.asarray(best.X[(best.obs["target_gene"] == n).to_numpy()].mean(axis=0)).ravel()
        for n in (name, CONTROL)
    ]
    frequent = means[1] > 1
    seen = np.log(means[0][frequent] / means[1][frequent])
    effect = sim.truth.effect[list(sim.truth.perturbations).index(name)][frequent]
    assert np.corrcoef(seen, effect)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cells": 20, "perturbations": 40, "genes": 500}, r"too few cells \(20\)"),
        ({"genes": 30}, r"too few genes \(30\)"),
        ({"cells": 0}, "cannot simulate 0 cells"),
        ({"knockdown": 1.0}, "knockdown"),
    ],
)
def test_impossible_designs_are_refused_in_one_sentence(changes, words):
    with pytest.raises(UserError, match=words):
        Simulator(SimulationDesign(**changes))


def test_no_file_is_left_when_the_folder_is_missing(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        Simulator(cells=100, genes=100, perturbations=5).write(tmp_path / "no" / "cells.h5ad")
