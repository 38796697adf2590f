"""Scores of predicted outcomes: AUC, its interval over patients, calibration; paired comparisons.

The AUC counts pairs of patients of the same fold only: scores of two folds come from two models,
and comparing them is biased (a fold's training set has fewer of what its test set has more of).
Intervals come from a Bayesian bootstrap over patients (Rubin 1981) with the same weights for all
models, so that differences are paired: quantiles of the draws for an AUC, Student's t with their
standard deviation for a difference. With more than two outcomes, the mean over each against the
rest. P patients, C outcomes, W draws.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.metrics.verdict import LEVEL, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = NDArray[Any]

_DRAWS, BINS = 2000, 10
CHANCE = 0.5
_EDGE = 1e-12  # smaller differences are rounding errors


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % interval, and its standard error."""

    value: float
    low: float
    high: float
    error: float

    def __str__(self) -> str:
        return f"{_short(self.value)} ({_short(self.low)} to {_short(self.high)})"

    def plain(self) -> dict[str, float]:
        """Return the interval as JSON types."""
        return dict(vars(self))

    @property
    def difference(self) -> str:
        """The interval as text with signs."""
        return f"{signed(self.value)} ({signed(self.low, 2)} to {signed(self.high, 2)})"


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


@dataclass(frozen=True)
class PatientJudge:
    """Scores any model's probabilities for the same patients, with the same weights.

    Attributes
    ----------
    outcome, fold
        ``[P]`` outcome and fold of each patient.
    outcomes
        Number of outcomes.
    """

    outcome: NDArray[np.int64]
    fold: NDArray[np.int64]
    outcomes: int
    seed: int = 0

    @cached_property
    def _weights(self) -> Array:
        """``[1 + W, P]`` weights, the same for every model; the first row is ones."""
        rng = np.random.default_rng((self.seed, 0xB007))
        drawn: Array = rng.exponential(size=(_DRAWS, len(self.outcome)))
        return np.concatenate([np.ones((1, len(self.outcome))), drawn])

    def aucs(self, probability: Array) -> Array:
        """Return [1 + W]: the AUC, and the AUC of each draw."""
        weights = self._weights
        codes = [1] if self.outcomes == 2 else list(range(self.outcomes))
        found: Array = np.mean([self._auc(probability[:, c], c, weights) for c in codes], axis=0)
        return found

    def _auc(self, score: Array, code: int, weights: Array) -> Array:
        yes, no = np.flatnonzero(self.outcome == code), np.flatnonzero(self.outcome != code)
        a, b = score[yes][:, None], score[no][None, :]
        paired = (self.fold[yes][:, None] == self.fold[no][None, :]).astype(float)
        right = ((a > b) + 0.5 * (a == b)) * paired
        mine, other = weights[:, yes], weights[:, no]
        won = np.einsum("wi,ij,wj->w", mine, right, other, optimize=True)
        found: Array = won / np.einsum("wi,ij,wj->w", mine, paired, other, optimize=True)
        return found

    def auc(self, probability: Array) -> Interval:
        """Return the AUC with its interval.

        If all pairs are in the right order, or all in the wrong one, so they are in every draw. As
        many pairs as share no patient are independent: they bound the AUC from the other side.
        """
        found = _interval(self.aucs(probability))
        reach = ((1 - LEVEL) / 2) ** (1 / self._disjoint)
        if found.value > 1 - _EDGE:
            return dataclasses.replace(found, low=min(found.low, reach))
        if found.value < _EDGE:
            return dataclasses.replace(found, high=max(found.high, 1 - reach))
        return found

    @cached_property
    def _disjoint(self) -> int:
        """Number of pairs of one fold that share no patient, for the outcome with the fewest."""
        table = np.zeros((int(self.fold.max()) + 1, self.outcomes), np.int64)
        np.add.at(table, (self.fold, self.outcome), 1)
        pairs = np.minimum(table, table.sum(1, keepdims=True) - table).sum(0)
        return max(int(pairs.min()), 1)

    def gain(self, probability: Array, other: Array) -> Interval:
        """Return the difference in AUC of two models, paired by patient."""
        apart = self.aucs(probability) - self.aucs(other)
        return _even(np.where(np.abs(apart) < _EDGE, 0, apart), len(self.outcome))

    def calibration(self, probability: Array) -> dict[str, float]:
        """Return the expected calibration error, its value for a calibrated model, and more.

        With few patients no model has an error of 0: ``ece_expected`` is the mean error if outcomes
        are drawn from the probabilities.
        """
        n = np.arange(len(self.outcome))
        sure, chosen = probability.max(1), probability.argmax(1)
        rng = np.random.default_rng((self.seed, 0xECE))
        honest = [ece(sure, rng.random(len(n)) < sure) for _ in range(200)]
        right = np.zeros_like(probability)
        right[n, self.outcome] = 1
        own = np.clip(probability[n, self.outcome], 1e-12, 1)
        return {
            "ece": ece(sure, chosen == self.outcome), "ece_expected": float(np.mean(honest)),
            "brier": float(((probability - right) ** 2).sum(1).mean() / 2),
            "log_loss": float(-np.log(own).mean()),
            "accuracy": float((chosen == self.outcome).mean()),
        }  # fmt: skip

    def scored(self, probability: Array) -> dict[str, Any]:
        """Return all scores of a model, as JSON types."""
        return {"auc": self.auc(probability).plain(), **self.calibration(probability)}


def ece(sure: Array, right: Array) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy, by bin."""
    from vcell.gmvae.head import calibration_error

    return calibration_error(sure, right, BINS)


def _interval(drawn: Array) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[1:], [tail, 1 - tail])
    return Interval(float(drawn[0]), float(low), float(high), float(drawn[1:].std()))


def _even(drawn: Array, n: int) -> Interval:
    """Return Student's interval with the draws' standard deviation.

    If two models order one pair of patients differently, all draws have the same sign, and
    quantiles would make that certain. The standard deviation is then 1.7 times the difference.
    """
    value, error = float(drawn[0]), float(drawn[1:].std())
    reach = beyond(1, n) * error
    return Interval(value, value - reach, value + reach, error)


def beyond(comparisons: int, n: int) -> float:
    """Return the number of standard errors beyond which a difference is significant.

    Student's t for n patients, at a level divided by the number of comparisons (Bonferroni).
    """
    from scipy import stats

    return float(stats.t.ppf(1 - (1 - LEVEL) / 2 / max(comparisons, 1), max(n - 2, 1)))


def verdict(judge: PatientJudge, model: str, probabilities: Mapping[str, Array]) -> dict[str, Any]:
    """Return whether a model beats all others, with a sentence.

    It beats them if the interval of every difference is above 0 and that of its own AUC above .5;
    it loses if that of a difference is below 0.
    """
    over = {
        name: judge.gain(probabilities[model], other)
        for name, other in probabilities.items()
        if name != model
    }
    if not over:
        return {"claim": "alone", "nearest": None, "over": {}, "text": model}
    lost = [name for name, one in over.items() if one.high < 0]
    nearest = min(over, key=lambda name: over[name].value)
    one = over[nearest]
    if lost:
        claim, text = "worse", f"{' and '.join(lost)} beat{'s' * (len(lost) == 1)} {model}"
        text += f": AUC {one.difference} over {nearest}"
    elif all(one.low > 0 for one in over.values()):
        own = judge.auc(probabilities[model])
        if own.low <= CHANCE:
            text = (
                f"{model} is ahead of all others here, but not shown to be above chance: AUC {own}"
            )
            return _plain("open", nearest, text, over)
        claim = "beats"
        text = f"{model} beats all others here; the nearest is {nearest}: {one.difference}"
    elif one.value < 0:
        claim = "open"
        text = f"{nearest} is ahead of {model}, but no difference is shown: AUC {one.difference}"
    else:
        claim = "open"
        text = f"no difference shown: {model} over {nearest}: AUC {one.difference}"
    return _plain(claim, nearest, text, over)


def _plain(claim: str, nearest: str, text: str, over: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "claim": claim, "nearest": nearest, "text": text,
        "over": {name: one.plain() for name, one in over.items()},
    }  # fmt: skip


def curve(score: Array, yes: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return false and true positive rates of an ROC curve, from (0, 0) to (1, 1)."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(yes[order])[ends] / max(yes.sum(), 1)
    false = np.cumsum(~yes[order])[ends] / max((~yes).sum(), 1)
    return np.append(0, false), np.append(0, true)


def reliability(sure: Array, right: Array) -> list[tuple[float, float, int]]:
    """Return mean confidence, accuracy and number of patients of each non-empty bin."""
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        (float(sure[own].mean()), float(right[own].mean()), int(own.sum()))
        for own in (place == k for k in range(BINS))
        if own.any()
    ]
