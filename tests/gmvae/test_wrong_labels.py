"""Wrong labels are found if there are some, and only then."""

from __future__ import annotations

import csv
import json

import anndata
import numpy as np
import pytest

from tests.gmvae.conftest import planted
from vcell.gmvae.wrong_labels import doubts


def _points(cells, labels, apart, seed):
    """Draw cells of types of unequal size in 20 dimensions, their centres `apart` from others."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, labels + 1) / np.arange(1, labels + 1).sum()
    label = rng.choice(labels, cells, p=shares)
    centres = rng.normal(0, apart / np.sqrt(2), (labels, 20)) / np.sqrt(20)
    return centres[label] + rng.normal(0, 0.3, (cells, 20)), label


def _flipped(label, share, seed):
    rng = np.random.default_rng(seed)
    flip = rng.random(len(label)) < share
    n = label.max() + 1
    return np.where(flip, (label + rng.integers(1, n, len(label))) % n, label), flip


@pytest.mark.parametrize(
    ("cells", "labels", "apart"), [(1200, 8, 1.5), (1000, 2, 1.5), (600, 4, 2)]
)
def test_wrong_labels_are_found(cells, labels, apart):
    x, label = _points(cells, labels, apart, 0)
    given, flip = _flipped(label, 0.2, 1)
    found = doubts(x, given, labels, 0)
    assert found.share == pytest.approx(flip.mean(), abs=0.06)
    assert (found.suspect & flip).sum() > 0.75 * flip.sum()
    assert (found.suspect & ~flip).sum() < 0.1 * flip.sum()
    assert (found.likelier == label)[found.suspect].mean() > 0.8


@pytest.mark.parametrize("apart", [0, 0.5, 1.5, 5])
def test_correct_labels_are_not_suspected_even_if_they_are_hard(apart):
    x, label = _points(1500, 5, apart, 2)
    assert not doubts(x, label, 5, 0).suspect.any()


def test_labels_unrelated_to_the_counts_are_not_suspected():
    x, label = _points(1500, 5, 1.5, 3)
    shuffled = np.random.default_rng(4).permutation(label)
    assert not doubts(x, shuffled, 5, 0).suspect.any()


def test_no_label_loses_all_its_cells():
    x, label = _points(1000, 4, 2, 5)
    given, _ = _flipped(label, 0.3, 6)
    given[:3] = 4  # three cells, of any type
    found = doubts(x, given, 5, 0)
    assert found.suspect.any()
    assert set(given[~found.suspect]) == {0, 1, 2, 3, 4}


def _wrongly(home, name, seed):
    data = planted(1200, 1)
    right = np.array([int(kind[-1]) for kind in data.obs["kind"]])
    given, flip = _flipped(right, 0.2, seed)
    data.obs["wrong"] = [f"type-{k}" for k in given]
    data.write_h5ad(home / name)
    return right, flip


def test_cells_with_a_wrong_label_count_as_unlabelled(vcell, home):
    _wrongly(home, "wrong.h5ad", 9)
    done = vcell("train-gmvae", "wrong.h5ad", "--labels", "wrong", "--max-steps", 20, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["doubted"] == pytest.approx(0.2, abs=0.05)
    assert "shown labels look wrong" in done.stderr
    run = home / told["run"]
    with np.load(run / "cells.npz") as file:
        cells = dict(file)
    with (run / "doubted.csv").open() as file:
        rows = list(csv.DictReader(file))
    given = anndata.read_h5ad(home / "wrong.h5ad").obs
    assert len(rows) == cells["suspect"].sum()
    for row in rows:
        assert given.index[int(row["row"])] == row["cell"]
        assert given["wrong"].iloc[int(row["row"])] == row["label"]
    assert all(row["label"] != row["likelier"] for row in rows)
    assert (cells["shown"][cells["suspect"]] == -1).all()
    assert 140 < len(rows) < 240


def test_clean_labels_and_those_that_must_be_kept_are_all_shown(vcell, home, trained):
    assert trained["doubted"] == 0
    assert not (home / trained["run"] / "doubted.csv").exists()
    _wrongly(home, "wrong.h5ad", 9)
    done = vcell("train-gmvae", "wrong.h5ad", "--labels", "wrong", "--max-steps", 2,
                 "--keep-all-labels", "--json")  # fmt: skip
    told = json.loads(done.stdout)
    assert told["doubted"] == 0
    with np.load(home / told["run"] / "cells.npz") as file:
        assert ((file["shown"] >= 0) == ~file["held_out"]).all()
