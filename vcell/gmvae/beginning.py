"""Where the components of a mixture begin when no label is shown.

Components that begin at random share out the largest cell type among several of them, and leave
others empty. So they begin where a Gaussian mixture on principal components finds groups, as the
means of a labelled mixture begin at its labels. A mixture of too many Gaussians shares out the
largest type as well: groups are merged where two Gaussians are not worth their parameters (AIC).
N cells, D principal components, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST = 10_000  # cells that the Gaussian mixture is fitted to
_STARTS, _ROUNDS, _ENOUGH = 3, 100, 1e-3
_LEAST = 1e-4  # least variance in any direction, as a part of the mean variance


def groups(x: Array, k: int, seed: int) -> NDArray[np.int64]:
    """Return the group of each cell (N, D): at most k, which begin at 0, some with no cell.

    The likeliest of several fits decides, before groups are merged.
    """
    rng = np.random.default_rng((seed, 0xBE61))
    some = x if len(x) <= MOST else x[rng.choice(len(x), MOST, replace=False)]
    least = _LEAST * float(x.var(0).mean()) + 1e-12
    fits = [_fitted(some, k, least, rng) for _ in range(_STARTS)]
    _, parameters = max(fits, key=lambda fit: fit[0])
    pieces = [x[begin : begin + MOST] for begin in range(0, len(x), MOST)]
    code = np.concatenate([_log_joint(piece, *parameters).argmax(1) for piece in pieces])
    return _merged(x, code, least)


@dataclass(frozen=True)
class _Group:
    """Number of cells, their mean (D,), and the sum of squares about it (D, D)."""

    n: int
    mean: Array
    scatter: Array

    def __or__(self, other: _Group) -> _Group:
        n = self.n + other.n
        apart = other.mean - self.mean
        between = self.n * other.n / n * np.outer(apart, apart)
        mean = self.mean + other.n / n * apart
        return _Group(n, mean, self.scatter + other.scatter + between)

    def worth(self, pooled: Array, cells: int) -> float:
        """Return the log-likelihood of the cells, less the parameters it takes.

        The covariance is drawn towards the pooled one by D + 2 cells, and counts as that much less
        of a parameter: few cells are told apart by their mean.
        """
        d = len(self.mean)
        own = self.n / (self.n + d + 2)
        covariance = (self.scatter + (d + 2) * pooled) / (self.n + d + 2)
        square = np.trace(np.linalg.solve(covariance, self.scatter))
        likely = self.n * np.log(self.n / cells)
        likely -= 0.5 * (self.n * np.linalg.slogdet(covariance)[1] + square)
        return float(likely - own * d * (d + 1) / 2 - d - 1)


def _merged(x: Array, code: NDArray[np.int64], least: float) -> NDArray[np.int64]:
    """Merge the two groups that gain most by it, again and again while any do."""
    names = np.unique(code).tolist()
    found = {}
    for name in names:
        own = x[code == name]
        far = own - own.mean(0)
        found[name] = _Group(len(own), own.mean(0), far.T @ far)
    pooled = sum(group.scatter for group in found.values()) / len(x) + least * np.eye(x.shape[1])
    worth = {name: group.worth(pooled, len(x)) for name, group in found.items()}
    gain = {}

    def compare(one: int, other: int) -> None:
        both = found[one] | found[other]
        gain[one, other] = both.worth(pooled, len(x)) - worth[one] - worth[other]

    for one, other in combinations(names, 2):
        compare(one, other)
    into = {name: name for name in names}
    while gain and max(gain.values()) > 0:
        one, other = max(gain, key=gain.__getitem__)
        found[one] |= found.pop(other)
        worth[one] = found[one].worth(pooled, len(x))
        into = {name: one if group == other else group for name, group in into.items()}
        gain = {pair: value for pair, value in gain.items() if other not in pair}
        for pair in [pair for pair in gain if one in pair]:
            compare(*pair)
    return np.array([into[name] for name in code.tolist()], np.int64)


def _fitted(
    x: Array, k: int, least: float, rng: np.random.Generator
) -> tuple[float, tuple[Array, Array, Array]]:
    """Fit by EM from k-means; return the mean log-likelihood, and shares, means, covariances."""
    taken = np.eye(k)[_nearest(x, k, rng)]
    value = -np.inf
    for _ in range(_ROUNDS):
        parameters = _maximised(x, taken, least)
        log_joint = _log_joint(x, *parameters)
        whole = logsumexp(log_joint, axis=1)
        last, value = value, float(whole.mean())
        if value - last < _ENOUGH:
            break
        taken = np.exp(log_joint - whole[:, None])
    return value, parameters


def _nearest(x: Array, k: int, rng: np.random.Generator) -> Array:
    """Return the cluster of each cell by k-means, begun at cells that are far from each other."""
    centres = x[rng.integers(len(x), size=1)]
    for _ in range(k - 1):
        far = _squares(x, centres).min(1)
        share = far / far.sum() if far.sum() > 0 else None
        centres = np.concatenate([centres, x[rng.choice(len(x), 1, p=share)]])
    code: Array = _squares(x, centres).argmin(1)
    for _ in range(_ROUNDS):
        own = np.eye(k)[code]
        n = own.sum(0)[:, None]
        centres = np.where(n > 0, own.T @ x / np.maximum(n, 1), centres)
        last, code = code, _squares(x, centres).argmin(1)
        if (last == code).all():
            break
    return code


def _squares(x: Array, centres: Array) -> Array:
    """Return squared distances (N, K)."""
    whole = (x**2).sum(1)[:, None] - 2 * x @ centres.T + (centres**2).sum(1)
    found: Array = np.maximum(whole, 0)
    return found


def _maximised(x: Array, taken: Array, least: float) -> tuple[Array, Array, Array]:
    """Return shares (K,), means (K, D) and covariances (K, D, D), given what each takes (N, K)."""
    n = taken.sum(0) + 1e-10
    means = taken.T @ x / n[:, None]
    covariances = np.empty((len(n), x.shape[1], x.shape[1]))
    for j in range(len(n)):
        far = x - means[j]
        covariances[j] = (taken[:, j, None] * far).T @ far / n[j] + least * np.eye(x.shape[1])
    return n / n.sum(), means, covariances


def _log_joint(x: Array, shares: Array, means: Array, covariances: Array) -> Array:
    """Return the log of each share times the density, without its constant, (N, K)."""
    found = np.empty((len(x), len(shares)))
    for j in range(len(shares)):
        root = np.linalg.cholesky(covariances[j])
        far = solve_triangular(root, (x - means[j]).T, lower=True)
        found[:, j] = np.log(shares[j]) - 0.5 * (far**2).sum(0) - np.log(np.diag(root)).sum()
    return found
