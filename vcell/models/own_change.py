"""How much a perturbation changes its own target genes, learnt from the training targets.

c is a gene's expression in the controls, the mean of log1p values. Three rules have one parameter
each, the median of the training targets:

    share   change = (s - 1) c              a share of the expression is kept
    fold    change = log1p(k expm1(c)) - c  counts are multiplied
    level   change = log1p(expm1(c) + a) - c  counts are added

A knock-down has least to take where there is least, and all three say so. They differ for
activations: a share learnt from genes that are hardly expressed would raise an abundant gene by ten
units. The rule is `share` for knock-downs and `fold` for activations, unless another predicts
left-out targets better by more than a standard error. K measured training targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.screen.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen

    Array = NDArray[np.float64]

_ERRORS = 1.0
_FEWEST = 5  # target genes needed to choose a rule
_FOLDS = 5
_LOW, _HIGH = 0.01, 100.0  # limits of a share and of a fold
_TINY = 1e-9


class Rule:
    """A rule with its parameter: `value` is that of each target (K,), `change` what follows."""

    def __init__(
        self,
        value: Callable[[Array, Array], Array],
        change: Callable[[float, Array], Array],
        low: float,
        high: float,
    ) -> None:
        self.value, self.change, self.low, self.high = value, change, low, high

    def fit(self, control: Array, change: Array) -> float:
        """Return the median parameter of targets (K,)."""
        return float(np.clip(np.median(self.value(control, change)), self.low, self.high))


RULES = {
    "share": Rule(lambda c, d: 1 + d / np.maximum(c, _TINY), lambda s, c: (s - 1) * c, _LOW, _HIGH),
    "fold": Rule(
        lambda c, d: np.expm1(np.maximum(c + d, 0)) / np.maximum(np.expm1(c), _TINY),
        lambda k, c: np.log1p(k * np.expm1(c)) - c,
        _LOW,
        _HIGH,
    ),
    "level": Rule(
        lambda c, d: np.expm1(np.maximum(c + d, 0)) - np.expm1(c),
        lambda a, c: np.log1p(np.maximum(np.expm1(c) + a, 0)) - c,
        -np.inf,
        np.inf,
    ),
}


class OwnChange:
    """The change of target genes, by the rule that describes the training targets.

    Attributes
    ----------
    rule
        A name of `RULES`; None where no measured gene was a target.
    parameter
        Its parameter.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.control = screen.control.mean(axis=0, dtype=np.float64)
        self.rule: str | None = None
        self.parameter = np.nan
        learnt = screen.rows(TRAIN)
        column = screen.columns(screen.perturbations[learnt].tolist())
        rows, places = np.nonzero(column >= 0)
        genes = column[rows, places]
        seen = self.control[genes] > 0
        if seen.any():
            control = self.control[genes[seen]]
            change = screen.delta[learnt[rows[seen]], genes[seen]].astype(np.float64)
            self.rule = _chosen(control, change, genes[seen])
            self.parameter = RULES[self.rule].fit(control, change)

    def put_in(self, effect: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float32]:
        """Return effects (P, N) in which the change of each target gene is set."""
        predicted = effect.astype(np.float32)
        if self.rule is not None:
            column = self.screen.columns(names)
            rows, places = np.nonzero(column >= 0)
            genes = column[rows, places]
            predicted[rows, genes] = RULES[self.rule].change(self.parameter, self.control[genes])
        return predicted


def _chosen(control: Array, change: Array, gene: NDArray[np.int64]) -> str:
    """Return the name of the rule: the usual one, or one that is surely better."""
    usual = "share" if np.median(change) <= 0 else "fold"
    number = np.unique(gene, return_inverse=True)[1]
    if number.max() + 1 < _FEWEST:
        return usual
    fold = np.random.default_rng(0).permutation(number.max() + 1)[number] % _FOLDS
    error = {name: _missed(rule, control, change, fold) for name, rule in RULES.items()}
    best, least = usual, 0.0
    for name in RULES:
        gain = np.bincount(number, error[usual] - error[name]) / np.bincount(number)
        sure = float(gain.mean() - _ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)))
        if sure > least:
            best, least = name, sure
    return best


def _missed(rule: Rule, control: Array, change: Array, fold: NDArray[np.int64]) -> Array:
    """Return the absolute error (K,) of targets, each left out with its fold."""
    error = np.zeros(len(change))
    for one in range(_FOLDS):
        out = fold == one
        if out.any():
            parameter = rule.fit(control[~out], change[~out])
            error[out] = np.abs(rule.change(parameter, control[out]) - change[out])
    return error
