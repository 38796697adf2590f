"""Labels that look wrong, found before training.

Each labelled cell is predicted by a logistic regression on principal components that was not fitted
to it (five folds). A cell between two types is not a mistake; one that no temperature explains is.
So labels are modelled as draws from

    p(label) = (1 - e) softmax(log s + (log p - log s) / T)[label] + e q[label],

with the regression's p, the labels' shares s, and a temperature T and a share e of labels drawn at
random from q, all three by maximum likelihood. Cells whose label was more likely drawn at random
than not are suspects; the regression is then fitted without them, and they are evaluated again.
Labels that are unrelated to the counts are left unchanged: a high temperature turns p into the
shares. Of two penalties, the one that separates the two groups better is used. N cells, D
components, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from vcell.gmvae.head import fit, folds_of, pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LEAST, MUCH = 0.02, 0.5  # all labels are kept if the share of wrong ones is outside this range
MOST = 10_000  # maximum number of cells to fit a regression to
_PENALTIES, _ROUNDS, _STEPS = (1.0, 10.0), 3, 200
_TEMPERATURES = np.exp(np.linspace(-0.7, 3.0, 19))
_PRIOR = 10.0  # weight of the prior on q, in cells
_EVIDENCE = 10.0  # fewest nats that wrong labels must explain beyond a temperature
_NEVER = -1e8  # a label below this had no training cell


@dataclass(frozen=True)
class Doubts:
    """Estimates about the labels of some cells.

    Attributes
    ----------
    share
        Share of labels that are wrong.
    wrong
        (N,) the probability that the cell's label is wrong.
    likelier
        (N,) the most likely label of each cell.
    suspect
        (N,) whether the label should not be shown.
    """

    share: float
    wrong: Array
    likelier: Array
    suspect: Array


def doubts(x: Array, labels: Array, n_labels: int, seed: int) -> Doubts:
    """Judge the labels, 0 ... K - 1, of cells with components `x` (N, D)."""
    n = len(labels)
    drawn, suspect = np.zeros(n, bool), np.zeros(n, bool)
    drawn[np.random.default_rng((seed, 0xD0B7)).permutation(n)[:MOST]] = True
    base = np.bincount(labels, minlength=n_labels) / n
    task = _Labelled(x, labels, base, folds_of(labels, seed), drawn)
    best = max(
        (task.judged(suspect, one) for one in _PENALTIES), key=lambda judgement: judgement.evidence
    )
    for _ in range(_ROUNDS):
        last, suspect = suspect, _some_of_each_kept(best.wrong, labels)
        if best.share < LEAST or (last == suspect).all():
            break
        best = task.judged(suspect, best.penalty)
    if not LEAST <= best.share <= MUCH or best.share * n < _EVIDENCE:
        suspect = np.zeros(n, bool)
    return Doubts(best.share, best.wrong, best.likelier, suspect)


@dataclass(frozen=True)
class _Judgement:
    penalty: float
    evidence: float
    share: float
    wrong: Array
    likelier: Array


@dataclass(frozen=True)
class _Labelled:
    """Cells with labels, the share of each label, folds, and the cells to fit to."""

    x: Array
    labels: Array
    base: Array
    fold: Array
    drawn: Array

    def judged(self, suspect: Array, penalty: float) -> _Judgement:
        """Evaluate all cells by regressions without suspects and without the cell itself."""
        log_p, labels = self._out_of_fold(self.drawn & ~suspect, penalty), self.labels
        known = log_p[np.arange(len(labels)), labels] > _NEVER
        some = known & self.drawn
        if not some.any():
            nothing = np.zeros(len(labels))
            return _Judgement(penalty, -np.inf, 0.0, nothing, log_p.argmax(1))
        evidence, warmth, rates = _learnt(log_p[some], labels[some], self.base)
        own = _tempered(log_p, labels, self.base, warmth)
        wrong = np.where(known, _posterior(own, rates, labels), 0.0)
        # a label drawn at random may still be right
        share = float(rates @ (1 - self.base))
        return _Judgement(penalty, evidence, share, wrong, log_p.argmax(1))

    def _out_of_fold(self, used: Array, penalty: float) -> Array:
        log_p = np.full((len(self.labels), len(self.base)), -1e9)
        for k in range(self.fold.max() + 1):
            own, others = self.fold == k, used & (self.fold != k)
            if own.any() and others.any():
                head = fit(self.x[others], self.labels[others], len(self.base), penalty)
                log_p[own] = head.log_probabilities(self.x[own])
        return log_p


def _learnt(log_p: Array, labels: Array, base: Array) -> tuple[float, float, Array]:
    """Return the evidence of wrong labels in nats, the temperature, and e * q (K,)."""
    prior = (base + (base > 0) / (base > 0).sum()) / 2
    none, without = -np.inf, 1.0
    best, found = -np.inf, (1.0, np.zeros(len(base)))
    for warmth in _TEMPERATURES.tolist():
        own = _tempered(log_p, labels, base, warmth)
        rates = _by_em(own, labels, prior)
        alone = float(np.log(own + 1e-300).sum())
        if alone > none:
            none, without = alone, warmth
        value = float(np.log((1 - rates.sum()) * own + rates[labels] + 1e-300).sum())
        if value > best:
            best, found = value, (warmth, rates)
    if best - none > _EVIDENCE:
        return best - none, *found
    return best - none, without, np.zeros(len(base))


def _tempered(log_p: Array, labels: Array, base: Array, warmth: float) -> Array:
    """Return each own label's probability (N,); at high temperature it is the label's share."""
    log_base = np.log(np.maximum(base, 1e-300))
    own = np.empty(len(labels))
    for rows in pieces(log_p):
        warm = log_softmax(log_base + (log_p[rows] - log_base) / warmth, axis=1)
        own[rows] = warm[np.arange(len(warm)), labels[rows]]
    return np.exp(own)


def _by_em(own: Array, labels: Array, prior: Array) -> Array:
    """Return e * q, given the probability of each cell's own label."""
    rates = 0.05 * prior
    for _ in range(_STEPS):
        wrong = _posterior(own, rates, labels)
        spread = np.bincount(labels, wrong, minlength=len(prior)) + _PRIOR * prior
        new = wrong.mean() * spread / spread.sum()
        moved, rates = np.abs(new - rates).sum(), new
        if moved < 1e-5:
            break
    return rates


def _posterior(own: Array, rates: Array, labels: Array) -> Array:
    """Return the probability that a label is wrong, given e * q (K,)."""
    other = rates[labels]
    wrong: Array = other / ((1 - rates.sum()) * own + other + 1e-300)
    return wrong


def _some_of_each_kept(wrong: Array, labels: Array) -> Array:
    """Mark labels that are more likely wrong than right, except the surest cells of each label."""
    suspect = wrong > 0.5
    for label in np.unique(labels[suspect]):
        own = np.flatnonzero(labels == label)
        suspect[own[wrong[own].argmin()]] = False
    return np.asarray(suspect)
