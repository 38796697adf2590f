"""Where components begin without labels: in groups of principal components."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from vcell.gmvae.beginning import _merged, groups
from vcell.gmvae.cells import compressed
from vcell.gmvae.mixture import Mixture
from vcell.gmvae.network import Gmvae, GmvaeShape, Weights
from vcell.gmvae.scores import adjusted_rand
from vcell.runs import Run


def large_and_small() -> tuple[np.ndarray, np.ndarray]:
    """Draw one large, long group and two small, round ones."""
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], [900, 60, 40])
    x = rng.normal(0, [12.0, 1.0, 1.0, 1.0], (1000, 4))
    x[code > 0, 0] /= 12
    x[code == 1, 1] += 12
    x[code == 2, 2] += 12
    return x, code


def test_a_large_group_is_not_shared_out():
    x, code = large_and_small()
    assert adjusted_rand(code, groups(x, 3, seed=0)) > 0.95
    assert (groups(x, 3, seed=0) == groups(x, 3, seed=0)).all()


def test_more_groups_than_there_are_different_cells_is_no_error():
    x = np.repeat(np.eye(3), 2, axis=0)
    assert groups(x, 5, seed=0).shape == (6,)
    assert groups(np.zeros((6, 2)), 5, seed=0).shape == (6,)


def test_of_too_many_groups_those_that_are_one_are_merged():
    x, code = large_and_small()
    found = groups(x, 8, seed=0)
    assert adjusted_rand(code, found) > 0.95
    assert len(np.unique(found)) < 6


def worth(x, pooled, cells):
    """The log-likelihood of a group as it is written down, less its parameters."""
    n, d = x.shape
    own = n / (n + d + 2)
    scatter = (n - 1) * np.cov(x, rowvar=False) if n > 1 else 0
    covariance = (scatter + (d + 2) * pooled) / (n + d + 2)
    law = multivariate_normal(x.mean(0), covariance)
    constant = n * d / 2 * np.log(2 * np.pi)  # all groups together have the same
    likely = law.logpdf(x).sum() + constant + n * np.log(n / cells)
    return likely - (own * d * (d + 1) / 2 + d + 1)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_merged_as_by_trying_all_pairs(seed):
    rng = np.random.default_rng(seed)
    code = rng.choice(9, 300, p=rng.dirichlet(np.ones(9)))
    x = rng.normal(0, 1, (300, 3)) + 1.5 * rng.normal(size=(9, 3))[code]
    x[code == 8] = x[code == 8][:1]  # the same cell, again and again
    pooled = sum((len(x[code == k]) * np.cov(x[code == k], rowvar=False, bias=True)
                  for k in np.unique(code) if (code == k).sum() > 1), 0)  # fmt: skip
    pooled = pooled / 300 + 1e-3 * np.eye(3)
    expected = code.copy()
    while True:
        own = {k: worth(x[expected == k], pooled, 300) for k in np.unique(expected)}
        gain = {
            (a, b): worth(x[np.isin(expected, [a, b])], pooled, 300) - own[a] - own[b]
            for a, b in combinations(own, 2)
        }
        best = max(gain, key=gain.get, default=None)
        if best is None or gain[best] <= 0:
            break
        expected[expected == best[1]] = best[0]
    found = _merged(x, code, 1e-3)
    assert len(np.unique(found)) < len(np.unique(code))
    np.testing.assert_array_equal(found, expected)


def test_components_take_the_shares_of_their_groups():
    mixture = Mixture(3, 2, labelled=False)
    mixture.share_out([997, 0, 0])
    assert torch.allclose(mixture.logits.exp(), torch.tensor([0.998, 0.001, 0.001]))


def test_the_hold_of_the_groups_ends():
    borders, indices = np.arange(0, 9, 2), np.tile(np.arange(2, dtype=np.int32), 4)
    counts = np.arange(1, 9, dtype=np.float32)
    begin = torch.tensor([0, 1, 2, -1])
    batch = compressed(borders, indices, counts, 3, 10.0, begin=begin)
    shape = GmvaeShape(genes=3, components=3, latent=2, encoder=(8,), decoder=(8,))
    network = Gmvae(shape, Weights(begin=10, labels=50))
    first = network(batch)
    assert first["labels"] > 0
    assert torch.allclose(first["total"], first["counts"] + first["kl"] + 50 * first["labels"])
    network.taken.fill_(10)
    last = network(batch)
    assert torch.allclose(last["total"], last["counts"] + last["kl"])


def test_training_cells_begin_in_a_component_where_no_label_is_shown(vcell, cells):
    for share, begun in (("0", True), ("0.5", False)):
        done = vcell("train-gmvae", cells, "--labels", "kind", "--label-fraction", share,
                     "--max-steps", 5, "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr
        run = Run.open(cells.parent / json.loads(done.stdout)["run"])
        with np.load(run.path / "cells.npz") as file:
            assert (file["begin"][file["held_out"]] == -1).all()
            assert (file["begin"][~file["held_out"]] >= 0).all() == begun
        # the cross entropy of the components that cells begin in, or of labels
        assert min(run.history().series("labels").values) > 0
