"""The label head: guessed labels, the product of two heads, and labels with few cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from vcell.gmvae import label_head
from vcell.gmvae.head import Guesses, fit
from vcell.gmvae.label_head import LabelHead, drawn_from, fit_heads
from vcell.gmvae.outliers import Outliers
from vcell.gmvae.trained import read_head, write_head


def _drawn(cells, seed, *, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(cells) % 3
    centres = np.random.default_rng(0).normal(0, 2, (3, 5))
    return centres[labels] + rng.normal(0, spread, (cells, 5)), labels


def test_guesses_count_by_their_weight_as_in_scikit_learn():
    x, labels = _drawn(60, 1, spread=3)
    free, _ = _drawn(90, 2, spread=3)
    likely = np.random.default_rng(3).dirichlet(np.ones(3), 90)
    head = fit(x, labels, 3, penalty=2.0, guesses=Guesses(free, likely, 0.3))
    # the reference has each guessed cell three times, once with each label
    every = np.concatenate([x, np.repeat(free, 3, 0)])
    scale = np.concatenate([x, free])
    every = (every - scale.mean(0)) / scale.std(0)
    weight = np.concatenate([np.ones(60), 0.3 * likely.ravel()])
    told = np.concatenate([labels, np.tile(np.arange(3), 90)])
    reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000)
    reference.fit(every, told, sample_weight=weight)
    np.testing.assert_allclose(
        np.exp(head.log_probabilities(free)), reference.predict_proba(every[60::3]), atol=2e-4
    )


def test_weights_count_as_in_scikit_learn():
    x, labels = _drawn(90, 1, spread=3)
    weight = np.random.default_rng(2).uniform(0.5, 4, 90)
    head = fit(x, labels, 3, penalty=2.0, weight=weight)
    reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000)
    reference.fit((x - x.mean(0)) / x.std(0), labels, sample_weight=weight)
    np.testing.assert_allclose(
        np.exp(head.log_probabilities(x)),
        reference.predict_proba((x - x.mean(0)) / x.std(0)),
        atol=2e-4,
    )


def test_of_many_labelled_cells_some_of_each_label_stand_for_all():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1, 2, 4], 200_000, p=[0.1, 0.7, 0.1985, 0.001, 0.0005])
    rows, weight = drawn_from(labels, 1)
    assert (np.diff(rows) > 0).all()
    count, drawn = np.bincount(labels[labels >= 0]), np.bincount(labels[rows])
    assert drawn[[2, 4]].tolist() == [200, min(200, count[4])]
    assert label_head.LABELLED < len(rows) < label_head.LABELLED + 2 * label_head.FEWEST
    np.testing.assert_allclose(np.bincount(labels[rows], weight), count)


@pytest.mark.parametrize("n", [0, 500, label_head.LABELLED])
def test_of_fewer_labelled_cells_all_are_taken_and_count_once(n):
    labels = np.repeat([-1, 0], [40, n])
    rows, weight = drawn_from(labels, 1)
    assert rows.tolist() == list(range(40, 40 + n))
    assert (weight == 1).all()


def _memorised():
    """Draw cells whose latent means are far from others of their label if it is shown."""
    x, truth = _drawn(600, 4)
    shown = np.full(600, -1)
    for k in range(3):
        shown[np.flatnonzero(truth == k)[:6]] = k
    mean = x.copy()
    mean[shown >= 0] += 6 * np.eye(5)[shown[shown >= 0]]
    return mean, x, shown, truth


def test_labels_that_the_network_memorised_are_still_predicted():
    mean, x, shown, truth = _memorised()
    rows = shown >= 0
    free = ~rows
    naive = fit(mean[rows], shown[rows], 3).log_probabilities(mean[free]).argmax(1)
    head = fit_heads(mean, [x], shown, 3, np.zeros(600, bool))
    alone = head.log_probabilities(mean[free]).argmax(1)
    both = head.log_probabilities(mean[free], [x[free]]).argmax(1)
    right = [(given == truth[free]).mean() for given in (naive, alone, both)]
    assert right[1] > right[0] + 0.02
    assert right[2] > 0.9


def test_a_label_shown_by_no_cell_is_never_predicted():
    mean, x, shown, _ = _memorised()
    head = fit_heads(mean, [x], np.where(shown == 1, -1, shown), 3, np.zeros(600, bool))
    assert set(head.log_probabilities(mean, [x]).argmax(1)) == {0, 2}


def test_all_heads_are_multiplied_and_each_takes_its_own_components():
    mean, x, shown, _ = _memorised()
    parts = [x[:, :2], x[:, 2:]]
    head = fit_heads(mean, parts, shown, 3, np.zeros(600, bool))
    own = [one.logits(part) for one, part in zip(head.components, parts, strict=True)]
    every = (head.latent.logits(mean) + sum(own)) / 3
    np.testing.assert_allclose(head.log_probabilities(mean, parts), log_softmax(every, axis=1))


@pytest.mark.parametrize("parts", [0, 1, 2])  # older runs have one part or none
def test_it_is_read_back_unchanged(tmp_path, parts):
    mean, x, shown, _ = _memorised()
    apart = np.zeros(600, bool)
    apart[np.flatnonzero(shown >= 0)[::4]] = True
    split = [x[:, :3], x[:, 3:]][:parts]
    head = fit_heads(mean, split or [x], shown, 3, apart)
    if not parts:
        head = LabelHead(head.latent)
    outliers = Outliers.learnt(mean, shown, mean)
    write_head(tmp_path / "head.npz", head, outliers)
    found, _ = read_head(tmp_path / "head.npz")
    assert len(found.components) == parts
    log_p = found.log_probabilities(mean, split)
    np.testing.assert_array_equal(log_p, head.log_probabilities(mean, split))
