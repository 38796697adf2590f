"""PDS distances and ranks against plain numpy, the row's own gene deleted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcell.metrics import vcc2025


def plain(real, pred, target, metric) -> np.ndarray:
    d = np.empty((len(pred), len(real)))
    for p in range(len(pred)):
        for q in range(len(real)):
            kept = np.arange(real.shape[1]) != target[p]
            a, b = pred[p, kept], real[q, kept]
            if metric == "l1":
                d[p, q] = np.abs(a - b).sum()
            elif metric == "l2":
                d[p, q] = np.sqrt(((a - b) ** 2).sum())
            else:
                norm = np.linalg.norm(a) * np.linalg.norm(b)
                d[p, q] = 1 - a @ b / norm if norm else 1
    return d


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), genes=st.integers(2, 30),
    metric=st.sampled_from(["l1", "l2", "cosine"]),
)  # fmt: skip
def test_distances(seed, n, genes, metric):
    rng = np.random.default_rng(seed)
    real, pred = rng.normal(size=(2, n, genes))
    target = rng.integers(-1, genes, n)
    found = vcc2025.distances(real, pred, target, metric)
    np.testing.assert_allclose(found, plain(real, pred, target, metric), rtol=1e-9, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), levels=st.integers(1, 4))
def test_ties_share_their_rank(seed, n, levels):
    d = np.random.default_rng(seed).integers(0, levels, (n, n)).astype(float)
    expected = []
    for p in range(n):
        places = np.flatnonzero(np.sort(d[p]) == d[p, p])  # where the tied ones could stand
        expected.append(1 - places.mean() / n)
    np.testing.assert_allclose(vcc2025.discrimination(d), expected)


def test_equal_effects_tie_exactly():
    """Two perturbations with one real effect: neither may win by rounding."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(6, 501))
    real[3] = real[1]
    target = np.full(6, -1)
    for metric in ("l1", "l2", "cosine"):
        d = vcc2025.distances(real, rng.normal(size=(6, 501)), target, metric)
        assert (d[:, 1] == d[:, 3]).all()


def test_no_perturbation_and_one():
    assert vcc2025.distances(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, int)).shape == (0, 0)
    one = vcc2025.distances(np.ones((1, 4)), np.zeros((1, 4)), np.array([2]))
    assert (one == 3).all()
    assert (vcc2025.discrimination(one) == 1).all()


def test_threads_do_not_change_distances():
    rng = np.random.default_rng(1)
    real, pred = rng.normal(size=(2, 31, 4001))  # enough for several threads
    target = rng.integers(-1, 4001, 31)
    whole = vcc2025.distances(real, pred, target)
    rows = [vcc2025.distances(real, pred[p : p + 1], target[p : p + 1]) for p in range(31)]
    assert (whole == np.concatenate(rows)).all()


@pytest.mark.parametrize("metric", ["l1", "l2"])
@pytest.mark.parametrize(("n", "genes"), [(1, 3), (63, 64), (65, 66), (130, 131), (64, 7)])
def test_the_order_of_a_sum_does_not_depend_on_tiles(n, genes, metric):
    """Four sums, each in the order of the genes; a rest of up to three goes to the first."""
    rng = np.random.default_rng(n)
    real, pred = rng.normal(size=(2, n, genes))
    target = rng.integers(-1, genes, n)
    d = pred[:, None] - real
    d[np.flatnonzero(target >= 0), :, target[target >= 0]] = 0.0
    d = np.abs(d) if metric == "l1" else d * d
    whole = genes - genes % 4
    terms = np.concatenate([d[..., :whole:4], d[..., whole:]], axis=2)
    lanes = [terms, *(d[..., k:whole:4] for k in (1, 2, 3))]
    s = [np.cumsum(lane, axis=2)[..., -1] if lane.shape[2] else np.zeros((n, n)) for lane in lanes]
    expected = (s[0] + s[1]) + (s[2] + s[3])
    expected = expected if metric == "l1" else np.sqrt(expected)
    assert (vcc2025.distances(real, pred, target, metric) == expected).all()
