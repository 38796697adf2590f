"""Where components begin without labels: in groups of principal components."""

from __future__ import annotations

import json

import numpy as np
import torch

from vcell.gmvae.beginning import groups
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
