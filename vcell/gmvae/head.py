"""Multinomial logistic regression, its temperature, and the calibration of its probabilities.

L2 penalty, L-BFGS, float64; the optimum is unique, so a head depends only on the cells.
N cells, D dimensions, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]

FOLDS = 5
_AT_ONCE = 1 << 14  # entries of a piece: 128 KB


@dataclass(frozen=True)
class Guesses:
    """Unlabelled cells: their dimensions (N, D), guessed labels (N, K), and weight per cell."""

    x: Array
    probabilities: Array
    weight: float


@dataclass(frozen=True)
class Head:
    """``logits = ((x - centre) / scale) @ matrix + bias``, divided by the temperature.

    Attributes
    ----------
    centre, scale
        (D,) of the cells that it was fitted to.
    matrix, bias
        (D, K) and (K,).
    temperature
        Calibrates its probabilities; learnt on cells that it was not fitted to.
    """

    centre: Array
    scale: Array
    matrix: Array
    bias: Array
    temperature: float = 1.0

    def log_probabilities(self, x: Array) -> Array:
        """Return log probabilities (N, K)."""
        found: Array = log_softmax(self.logits(x) / self.temperature, axis=1)
        return found

    def logits(self, x: Array) -> Array:
        """Return logits (N, K) without the temperature."""
        found: Array = ((x - self.centre) / self.scale) @ self.matrix + self.bias
        return found

    def at(self, temperature: float) -> Head:
        """Return the head with another temperature."""
        return replace(self, temperature=temperature)

    def arrays(self) -> dict[str, Array]:
        """Return all parameters as arrays, for storage."""
        fields = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        return {name: value.astype(np.float64) for name, value in fields.items()}

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> Head:
        """Make a head from `arrays`."""
        return cls(
            arrays["centre"], arrays["scale"], arrays["matrix"], arrays["bias"],
            float(arrays["temperature"]),
        )  # fmt: skip


def fit(
    x: Array,
    labels: Array,
    n_labels: int,
    penalty: float = 1.0,
    guesses: Guesses | None = None,
    weight: Array | None = None,
) -> Head:
    """Fit to cells (N, D) with labels 0 ... K - 1; labels without a cell are never predicted.

    Cells count by their `weight` (N,), and cells with guessed labels by theirs. The penalty is on
    half the squared weights of standardised dimensions, against the summed loss: scikit-learn's
    ``C = 1 / penalty``.
    """
    x = np.asarray(x, np.float64)
    if guesses is not None:
        x = np.concatenate([x, guesses.x], dtype=np.float64)
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    z = (x - centre) / scale
    n, d = z.shape
    seen = np.bincount(labels, minlength=n_labels) > 0
    kept = np.flatnonzero(seen)
    place = np.cumsum(seen) - 1
    own = np.ones(len(labels)) if weight is None else weight
    target = np.zeros((n, len(kept)))
    target[np.arange(len(labels)), place[labels]] = own
    each = np.ones((n, 1))
    each[: len(labels), 0] = own
    if guesses is not None:
        target[len(labels) :] = guesses.weight * guesses.probabilities[:, kept]
        each[len(labels) :] = guesses.weight

    start = np.zeros((d + 1, len(kept)))
    start[-1] = np.log(np.bincount(place[labels], own, minlength=len(kept)) / own.sum())
    found = minimize(
        _Loss(z, target, each, penalty), start.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-10, "gtol": 1e-6},
    ).x.reshape(d + 1, len(kept))  # fmt: skip
    matrix, bias = np.zeros((d, n_labels)), np.full(n_labels, -1e9)
    matrix[:, kept], bias[kept] = found[:-1], found[-1]
    return Head(centre, scale, matrix, bias)


class _Loss:
    """The penalised loss of parameters (D + 1, K), and its slope.

    It is computed a few thousand times, so its memory is used again, and rows are taken while they
    are in the cache.
    """

    def __init__(self, z: Array, target: Array, weight: Array, penalty: float) -> None:
        self.z, self.target, self.weight, self.penalty = z, target, weight, penalty
        self._log_p, self._slope = np.empty((2, *target.shape))

    def __call__(self, flat: Array) -> tuple[float, Array]:
        w = flat.reshape(-1, self.target.shape[1])
        np.matmul(self.z, w[:-1], out=self._log_p)
        for rows in pieces(self.target):
            log_p, slope = self._log_p[rows], self._slope[rows]
            log_p += w[-1]
            _normalise(log_p, slope)
            np.exp(log_p, out=slope)
            slope *= self.weight[rows]
            slope -= self.target[rows]
            log_p *= self.target[rows]
        gradient = np.vstack([self.z.T @ self._slope + self.penalty * w[:-1], self._slope.sum(0)])
        value = -self._log_p.sum() + 0.5 * self.penalty * (w[:-1] ** 2).sum()
        return float(value), gradient.ravel()


def _normalise(logits: Array, spare: Array) -> None:
    """Turn logits into log probabilities in place, rounded as scipy's ``log_softmax`` does."""
    top = logits.max(1, keepdims=True)
    top[~np.isfinite(top)] = 0
    logits -= top
    np.exp(logits, out=spare)
    with np.errstate(divide="ignore"):
        logits -= np.log(spare.sum(1, keepdims=True))


def pieces(table: Array) -> Iterator[slice]:
    """Split the rows of a table into pieces that stay in the cache."""
    step = max(_AT_ONCE // max(table.shape[1], 1), 1)
    for start in range(0, len(table), step):
        yield slice(start, start + step)


def folds_of(labels: Array, seed: int, folds: int = FOLDS) -> Array:
    """Assign the cells of each label to folds; return each cell's fold."""
    rng = np.random.default_rng((seed, 0xF01D))
    fold = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        fold[own] = (np.arange(len(own)) + rng.integers(folds)) % folds
    return fold


def withheld(labels: Array, seed: int) -> NDArray[np.bool_]:
    """Choose a fifth of the cells of each label that has five or more; -1 is not a label.

    Their labels are withheld from the network, so that a temperature can be learnt from them: cells
    whose label the network was given are closer to their centre than others.
    """
    known = labels >= 0
    many = np.bincount(labels[known], minlength=labels.max() + 1) >= FOLDS
    chosen: NDArray[np.bool_] = np.zeros(len(labels), bool)
    if known.any():
        chosen[known] = (folds_of(labels[known], seed) == 0) & many[labels[known]]
    return chosen


def temperature(logits: Array, labels: Array) -> float:
    """Return the divisor of logits (N, K) that maximises the likelihood of labels (N,)."""

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-log_p[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x))


def calibration_error(probability: Array, right: Array, bins: int = 15) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy, by bin."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    gap = np.bincount(place, probability - right, minlength=bins)
    return float(np.abs(gap).sum() / max(n.sum(), 1))
