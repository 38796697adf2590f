"""Cells generated from control cells: mean, variance, depth, significant genes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from vcell_predict.cells.counts import ControlCounts
from vcell_predict.cells.pool import Pool
from vcell_predict.cells.residual import move
from vcell_predict.strength.significant import count, z_scores

from vcell.data.simulate import simulate

TOTAL = 4000.0


@pytest.fixture(scope="module")
def screen():
    """Counts of a simulated screen, and its labels."""
    adata = simulate(cells=2400, genes=600, perturbations=6, null_fraction=0, umis=TOTAL, seed=2)
    return sp.csr_array(adata.X), adata.obs["target_gene"].to_numpy()


def pool_of(counts) -> Pool:
    n = counts.shape[0]
    return Pool(counts.astype(np.float32), np.arange(n), np.zeros(n, np.int64))


def log(counts):
    return pool_of(counts).logged(TOTAL).cells


def mean(cells):
    return np.asarray(cells.mean(axis=0)).ravel()


def totals(counts):
    return np.asarray(counts.sum(axis=1)).ravel()


@pytest.fixture(scope="module")
def controls(screen):
    counts, label = screen
    return pool_of(counts[label == "non-targeting"])


def test_shifted_cells_have_the_target_mean_even_for_large_increases():
    rng = np.random.default_rng(0)
    x = sp.random_array((500, 60), density=0.3, rng=rng, format="csr", dtype=np.float32)
    x.data += 0.5
    pool = pool_of(x)
    wanted = mean(x) * rng.uniform(0, 3, 60) - 0.02
    for n in (200, 1200):
        moved = move(pool, pool.choose(n, rng), wanted, rng)
        assert moved.shape == (n, 60)
        assert moved.data.min() > 0
        off = np.abs(mean(moved) - np.maximum(wanted, 0))
        assert off.max() < 1.2 / n * pool.typical.max()  # less than a cell's worth
        assert np.median(off) < 1e-6


def test_a_gene_no_control_has_stays_zero_and_cells_without_change_stay_as_they_are():
    rng = np.random.default_rng(0)
    x = sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 1], [3, 0, 0]], np.float32))
    pool = pool_of(x)
    moved = move(pool, np.arange(3), mean(x) + [0, 1, 0], rng)
    assert np.allclose(moved.toarray(), x.toarray())


@pytest.mark.parametrize("mode", ["residual", "counts"])
def test_as_many_genes_are_significant_as_in_real_cells_of_that_mean(screen, controls, mode):
    counts, label = screen
    pool, rng = controls.logged(TOTAL), np.random.default_rng(0)
    names = [name for name in np.unique(label) if name != "non-targeting"]
    real = [log(counts[label == name]) for name in names]
    made = []
    for cells in real:
        chosen = pool.choose(cells.shape[0], rng)
        if mode == "residual":
            made.append(move(pool, chosen, mean(cells), rng))
        else:
            made.append(log(ControlCounts(controls, TOTAL).make(chosen, mean(cells), None, rng)))
    wanted, z = z_scores(pool.cells, real), z_scores(pool.cells, made)
    assert count(wanted).min() > 10
    assert np.allclose(count(z), count(wanted), rtol=0.25, atol=5)
    assert all(np.corrcoef(a, b)[0, 1] > 0.9 for a, b in zip(z, wanted, strict=True))
    spread = [np.mean([cells.toarray().std(axis=0).mean() for cells in x]) for x in (made, real)]
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


def test_generated_counts_are_integers_with_the_target_mean(screen, controls):
    counts, label = screen
    rng = np.random.default_rng(1)
    pool = controls.logged(TOTAL)
    wanted = mean(log(counts[label == np.unique(label)[0]]))
    made = ControlCounts(controls, TOTAL).make(pool.choose(400, rng), wanted, None, rng)
    assert made.data.min() >= 1
    assert np.array_equal(made.data, np.rint(made.data))
    off = np.abs(mean(log(made)) - wanted)
    assert off.max() < 0.03
    assert off.mean() < 0.003


@pytest.mark.parametrize("fold", [0.4, 2.5])
def test_generated_counts_have_the_requested_depth(controls, fold):
    rng = np.random.default_rng(1)
    maker = ControlCounts(controls, TOTAL)
    chosen = controls.choose(450, rng)
    wanted = maker.library[chosen] * fold
    made = maker.make(chosen, mean(controls.logged(TOTAL).cells), wanted, rng)
    assert np.median(totals(made)) == pytest.approx(np.median(wanted), rel=0.01)
    assert np.allclose(totals(made), wanted, rtol=0.15)
    # shares of the library stay, variance between cells is that of counts of this depth
    share = [np.asarray(x.sum(axis=0)).ravel() / x.sum() for x in (made, controls.cells)]
    assert np.abs(share[0] - share[1]).sum() < 0.05
    deeper = simulate(
        cells=2400, genes=600, perturbations=6, null_fraction=0, umis=TOTAL * fold, seed=2
    )
    real = sp.csr_array(deeper.X)[deeper.obs["target_gene"].to_numpy() == "non-targeting"]
    full = [x.nnz / x.shape[0] for x in (made, real)]
    assert full[0] == pytest.approx(full[1], rel=0.03)


def test_a_pool_that_does_not_fit_is_thinned_with_a_message(controls, capsys):
    def reader(rows):
        yield rows, controls.cells[rows]

    rows = np.arange(len(controls))
    batch = np.zeros(len(rows), np.int64)
    whole = Pool.read(reader, rows, batch)
    assert len(whole) == len(rows)
    assert capsys.readouterr().err == ""
    fewer = Pool.read(reader, rows, batch, memory=1 << 20)
    assert 10 < len(fewer) < len(rows)
    assert f"{len(fewer):,} of {len(rows):,} control cells are kept" in capsys.readouterr().err
    assert fewer.rows[0] == 0
    assert fewer.rows[-1] == rows[-1]


def test_controls_are_chosen_from_the_requested_batches():
    pool = Pool(sp.csr_array(np.eye(6)), np.arange(6), np.array([0, 0, 0, 1, 1, 1]))
    chosen = pool.matching(np.array([1, 1, 0, 1, 7, 1]), np.random.default_rng(0))
    assert pool.batch[chosen].tolist()[:4] == [1, 1, 0, 1]
    assert len(set(pool.choose(6, np.random.default_rng(0)))) == 6
