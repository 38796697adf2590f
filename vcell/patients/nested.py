"""Nested cross-validation, one outer fold at a time.

Within the training patients of an outer fold, inner folds choose the number of axes and of steps,
and a temperature; then networks with several seeds are trained on all of them. The outer fold's
patients are used once, at the end, with their bulk expression only. The logistic regressions for
comparison choose their penalty by the same inner folds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from vcell.errors import UserError
from vcell.gmvae.head import fit as logistic
from vcell.patients import features, folds
from vcell.patients.network import BULK, BulkSettings, trained

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcell.patients.cohort import Cohort
    from vcell.patients.features import Fitted
    from vcell.patients.network import BulkNet

    Array = NDArray[Any]

MODEL, ON_PROPORTIONS, ON_BULK = "train-bulk", "logistic on proportions", "logistic on bulk PCs"
_PENALTIES = (0.3, 3.0, 30.0)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The candidates of the inner folds, and the amount of training.

    Attributes
    ----------
    inner
        Number of inner folds.
    axes
        Numbers of principal axes.
    steps
        Numbers of steps, ascending.
    members
        Number of networks whose logits are averaged.
    """

    inner: int = 3
    axes: tuple[int, ...] = (5, 20)
    steps: tuple[int, ...] = (50, 100, 200)
    members: int = 3
    genes: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Picked:
    """The choice of the inner folds."""

    axes: int
    steps: int
    temperature: float


@dataclass(frozen=True)
class Outer:
    """The result of one outer fold. T test patients.

    Attributes
    ----------
    tests
        ``[T]`` indices of the patients.
    probabilities
        ``[T, C]`` by model.
    weights
        ``[T, M]`` weights of the modalities in `names`.
    """

    tests: NDArray[np.int64]
    chosen: Picked
    probabilities: dict[str, Array]
    names: tuple[str, ...]
    weights: Array


def outer(  # noqa: PLR0913 - data, folds and settings
    cohort: Cohort,
    train: NDArray[np.int64],
    tests: NDArray[np.int64],
    learner: str,
    settings: BulkSettings,
    search: Search,
    *,
    chosen: Picked | None = None,
    baselines: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> Outer:
    """Learn from `train`, and predict `tests` by their bulk alone.

    Parameters
    ----------
    chosen
        An earlier choice; None lets the inner folds choose.
    baselines
        Whether to fit the logistic regressions too.
    tick
        Called after each fit.
    """
    settings = with_what_is_there(settings, cohort, learner)
    inner = inner_folds(cohort, train, search)
    picked = chosen or choose(cohort, train, inner, learner, settings, search, tick)
    fitted = features.fit(cohort, train, learner, genes=search.genes, axes=picked.axes)
    x = features.bulk_of(cohort, fitted, tests)
    models, logits, weights = members(cohort, train, fitted, settings, search, picked, x, tick)
    found = {MODEL: softmax(logits / picked.temperature, axis=1)}
    if baselines:
        found |= regressions(cohort, train, tests, inner, search)
        tick()
    return Outer(tests, picked, found, tuple(models[0].names), weights)


def with_what_is_there(settings: BulkSettings, cohort: Cohort, learner: str) -> BulkSettings:
    """Leave out modalities that the cohort lacks."""
    has = (*features.there(cohort, learner), BULK)
    left = tuple(n for n in settings.modalities if n in has)
    if not left:
        raise UserError(
            f"none of {', '.join(settings.modalities)} is there to predict by",
            hint="states need a run of train-gmvae, communication a table of pairs",
        )
    return dataclasses.replace(settings, modalities=left)


def fits(search: Search) -> int:
    """Return how many fits an outer fold takes, for a progress bar."""
    return search.members + 1 + search.inner * len(search.axes)


def inner_folds(cohort: Cohort, train: NDArray[np.int64], search: Search) -> NDArray[np.int64]:
    """Assign training patients to inner folds."""
    outcome = cohort.outcome[train]
    n = folds.possible(outcome, search.inner, quiet=True)
    names = [cohort.patients[i] for i in train]
    return folds.dealt(names, outcome, max(n, 2), search.seed)


def choose(
    cohort: Cohort,
    train: NDArray[np.int64],
    inner: NDArray[np.int64],
    learner: str,
    settings: BulkSettings,
    search: Search,
    tick: Callable[[], None] = lambda: None,
) -> Picked:
    """Choose by the log loss of inner test patients, and learn the temperature from them."""
    best: tuple[float, Picked] | None = None
    outcome = cohort.outcome[train]
    for axes in search.axes:
        logits = np.zeros((len(search.steps), len(train), len(cohort.outcomes)))
        for k in range(int(inner.max()) + 1):
            own, held = np.flatnonzero(inner != k), np.flatnonzero(inner == k)
            fitted = features.fit(cohort, train[own], learner, genes=search.genes, axes=axes)
            x = features.bulk_of(cohort, fitted, train[held])
            _, found, _ = trained(
                fitted, outcome[own], len(cohort.outcomes), settings,
                steps=search.steps, seed=search.seed + 7919 * k, tests=x,
            )  # fmt: skip
            logits[:, held] = found
            tick()
        for steps, one in zip(search.steps, logits, strict=True):
            temperature = _temperature(one, outcome)
            loss = _log_loss(one / temperature, outcome)
            if best is None or loss < best[0]:
                best = (loss, Picked(axes, steps, temperature))
    assert best is not None
    return best[1]


def members(
    cohort: Cohort,
    train: NDArray[np.int64],
    fitted: Fitted,
    settings: BulkSettings,
    search: Search,
    picked: Picked,
    x: Array,
    tick: Callable[[], None] = lambda: None,
) -> tuple[list[BulkNet], Array, Array]:
    """Train networks of several seeds; return them, mean logits and mean weights for `x`."""
    models, logits, weights = [], [], []
    for member in range(search.members):
        model, found, weight = trained(
            fitted, cohort.outcome[train], len(cohort.outcomes), settings,
            steps=(picked.steps,), seed=search.seed + 104729 * (member + 1), tests=x,
        )  # fmt: skip
        models.append(model)
        logits.append(found[-1])
        weights.append(weight)
        tick()
    return models, np.mean(logits, axis=0), np.mean(weights, axis=0)


def regressions(
    cohort: Cohort,
    train: NDArray[np.int64],
    tests: NDArray[np.int64],
    inner: NDArray[np.int64],
    search: Search,
) -> dict[str, Array]:
    """Return probabilities (T, C) of logistic regressions, on proportions and on bulk axes.

    The one on proportions uses the proportions of the test patients' own cells, which the
    classifier does not have: it shows their value where single cells are available.
    """
    shares = features.log_ratios(cohort.cells)
    found = {ON_PROPORTIONS: _tuned(cohort, [lambda _: shares], train, tests, inner)}

    def axes_of(axes: int) -> Callable[[NDArray[np.int64]], Array]:
        def learnt(own: NDArray[np.int64]) -> Array:
            logs = features.log_counts(cohort.bulk)
            fit = features.Axes.fit(logs[own], axes, keep=search.genes, even=False)
            return fit(logs)

        return learnt

    makers = [axes_of(axes) for axes in search.axes]
    return found | {ON_BULK: _tuned(cohort, makers, train, tests, inner)}


def _tuned(
    cohort: Cohort,
    makers: list[Callable[[NDArray[np.int64]], Array]],
    train: NDArray[np.int64],
    tests: NDArray[np.int64],
    inner: NDArray[np.int64],
) -> Array:
    """Choose features and penalty by the inner folds' log loss, fit to all, and predict."""
    n, outcome = len(cohort.outcomes), cohort.outcome
    losses = {}
    for which, maker in enumerate(makers):
        predicted = np.zeros((len(_PENALTIES), len(train), n))
        for k in range(int(inner.max()) + 1):
            own, held = train[inner != k], np.flatnonzero(inner == k)
            x = maker(own)
            for i, penalty in enumerate(_PENALTIES):
                head = logistic(x[own], outcome[own], n, penalty)
                predicted[i, held] = head.log_probabilities(x[train[held]])
        for i, penalty in enumerate(_PENALTIES):
            losses[which, penalty] = _log_loss(predicted[i], outcome[train])
    which, penalty = min(losses, key=lambda key: losses[key])
    x = makers[which](train)
    head = logistic(x[train], outcome[train], n, penalty)
    return np.exp(head.log_probabilities(x[tests]))


def _log_loss(logits: Array, outcome: Array) -> float:
    log_p = log_softmax(logits, axis=1)[np.arange(len(outcome)), outcome]
    return float(-np.maximum(log_p, -50).mean())


def _temperature(logits: Array, outcome: Array) -> float:
    """Return the calibrating temperature; a mild penalty keeps it near 1 for few patients."""

    def loss(log_t: float) -> float:
        return _log_loss(logits / np.exp(log_t), outcome) + 0.5 * log_t**2 / len(outcome)

    found = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    return float(np.exp(found.x))
