"""A Gaussian process over sets of target genes, in closed form: the prior of the networks.

The effects of two perturbations S and T are as alike as

    k(S, T) = c + z |S| |T| + sum over i in S, j in T of [ a (i = j) + b f(i, j) ]

with f the similarity of the genes' features: linear on unit rows, or exp(-distance^2 / width).
Its limits are the mean effect, ridge regression on the features, and the additive rule for pairs.
Leave-one-out predictions come in closed form, and judge the settings: those that are best by error,
correlation and discrimination together are averaged, since the data seldom tell which one is right.
A target that is among the genes measured moves by the share that training targets moved.
A set of targets that were all measured alone is predicted from those (`interactions`).
P perturbations, G target genes, N genes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell.metrics import vcc2025
from vcell.screen.split import TRAIN
from vcell_train_vcc.closed.interactions import Interactions
from vcell_train_vcc.closed.own import OwnChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen
    from vcell.runs import Run

    Array = NDArray[np.float64]

_WIDTHS = (None, 0.5, 1.0)  # of f; None: linear
_GRID = tuple(
    setting
    for setting in itertools.product(
        range(len(_WIDTHS)), (0.0, 0.3), (0.0, 0.3), (0.0, 0.3, 1.0), (0.0, 0.3, 1.0, 3.0),
        (0.03, 0.1, 0.3, 1.0), (False, True),
    )
    if setting[3] + setting[4] > 0 and (setting[4] > 0 or setting[0] == 0)  # no width of nothing
)  # fmt: skip
_JUDGED = 60  # settings, best by error and correlation, that discrimination is computed for
_AVERAGED = 20
_GENES = 1000  # most variable genes, by which settings are judged
_MOST = 400  # perturbations by which they are judged


@dataclass(frozen=True)
class Setting:
    """Parameters of the kernel, the noise, and whether effects are taken about their mean."""

    width: int
    constant: float
    size: float
    own: float
    features: float
    noise: float
    centred: bool


class Kernel:
    """k(S, T) of perturbations by name, for any setting."""

    def __init__(self, targets: Screen, names: Sequence[str]) -> None:
        self.targets = targets
        members = targets.members(names)
        self.genes = sorted({gene for one in members for gene in one})
        self.unit = self._units(self.genes)
        self.rows = self._indicator(members, self.genes)
        self.base = [self._features(self.unit, self.unit, width) for width in _WIDTHS]

    def of(self, setting: Setting) -> Array:
        """Return (P, P) of the names given."""
        size = self.rows.sum(axis=1)
        inner = setting.own * np.eye(len(self.genes)) + setting.features * self.base[setting.width]
        pairs = self.rows @ inner @ self.rows.T
        found: Array = setting.constant + setting.size * np.outer(size, size) + pairs
        return found

    def across(self, names: Sequence[str], setting: Setting) -> tuple[Array, Array]:
        """Return (Q, P) between other names and those given, and (Q,) of others with themselves."""
        members = self.targets.members(names)
        genes = sorted({gene for one in members for gene in one})
        rows, unit = self._indicator(members, genes), self._units(genes)
        same = np.array([[a == b for b in self.genes] for a in genes], float)
        width, own, size = _WIDTHS[setting.width], setting.own, rows.sum(axis=1)
        inner = own * same + setting.features * self._features(unit, self.unit, width)
        found = setting.constant + setting.size * np.outer(size, self.rows.sum(axis=1))
        itself = own * np.eye(len(genes)) + setting.features * self._features(unit, unit, width)
        alone = setting.constant + setting.size * size**2
        alone += np.einsum("pg,gh,ph->p", rows, itself, rows)
        return found + rows @ inner @ self.rows.T, alone

    def _units(self, genes: Sequence[str]) -> Array:
        features = self.targets.pooled(genes).astype(np.float64)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(features / np.maximum(length, 1e-12))

    @staticmethod
    def _features(a: Array, b: Array, width: float | None) -> Array:
        inner = np.asarray(a @ b.T)
        if width is None:
            return inner
        return np.asarray(np.exp(-np.maximum(2 - 2 * inner, 0) / width))

    @staticmethod
    def _indicator(members: Sequence[tuple[str, ...]], genes: Sequence[str]) -> Array:
        place = {gene: i for i, gene in enumerate(genes)}
        rows = np.zeros((len(members), len(genes)))
        for i, one in enumerate(members):
            for gene in one:
                rows[i, place[gene]] += 1
        return rows


class GaussianProcess:
    """Fitted to the training perturbations of a screen."""

    def __init__(self, screen: Screen) -> None:
        self.targets = screen
        self.learned = screen.rows(TRAIN)
        self.names = [str(name) for name in screen.perturbations[self.learned]]
        self.delta = screen.delta[self.learned].astype(np.float64)
        self.mean = self.delta.mean(axis=0)
        self.own = OwnChange(screen)
        self.kernel = Kernel(self.targets, self.names)
        self.settings = self._chosen()
        self.fits = [(setting, *self._solved(setting)) for setting in self.settings]
        apart = np.mean([self._left_out(*fit) for fit in self.fits], axis=0)
        self._each_left_out = self.own.put_in(apart, self.names)
        self.sets = Interactions(self.names, self.delta, self._each_left_out.astype(np.float64))
        if self.sets.shrinkage is not None:
            self._each_left_out[self.sets.rows] = self.sets.left_out(self.sets.shrinkage)

    def loo(self) -> NDArray[np.float32]:
        """Return (P, N): each training perturbation predicted from the others."""
        return self._each_left_out.copy()

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return effects (Q, N), the same in every context; NaN where nothing is known."""
        del contexts
        known = self.targets.known(perturbations)
        effect = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if names:
            parts = [
                self._centre(setting) + self.kernel.across(names, setting)[0] @ weights
                for setting, weights, _ in self.fits
            ]
            effect[known] = self.own.put_in(np.mean(parts, axis=0), names)
        together = self.sets.covers(perturbations)
        effect[together] = self.sets.predict([*itertools.compress(perturbations, together)])
        return effect

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return (Q, N): how far effects may lie from the prediction.

        Larger effects are missed by more: the process's own doubt, which knows of none of them, is
        raised by sqrt((1 + r^2) / 2), r the effect's size relative to those left out.
        """
        del contexts
        known = self.targets.known(perturbations)
        spread = np.full((len(perturbations), self.delta.shape[1]), np.nan, np.float32)
        names = [name for name, has in zip(perturbations, known, strict=True) if has]
        if not names:
            return spread
        left = np.square(self.delta - self.loo()).mean(axis=0)
        share = []
        for setting, _, inverse in self.fits:
            across, alone = self.kernel.across(names, setting)
            variance = alone - np.einsum("qp,pr,qr->q", across, inverse, across) + setting.noise
            share.append(variance * np.diag(inverse).mean())  # 1 at the average left-out one
        size = np.square(self.predict(names), dtype=np.float64).mean(axis=1)
        usual = max(float(np.square(self.loo(), dtype=np.float64).mean(axis=1).mean()), 1e-12)
        scale = np.sqrt(np.maximum(np.mean(share, axis=0), 0) * (1 + size / usual) / 2)
        spread[known] = scale[:, None] * np.sqrt(left)
        return spread

    def _centre(self, setting: Setting) -> Array:
        return self.mean if setting.centred else np.zeros_like(self.mean)

    def _solved(self, setting: Setting) -> tuple[Array, Array]:
        """Return the weights (P, N) and the inverse (P, P) of the noisy kernel."""
        kernel = self.kernel.of(setting)
        inverse = np.linalg.inv(kernel + setting.noise * np.eye(len(kernel)))
        weights: Array = inverse @ (self.delta - self._centre(setting))
        return weights, np.asarray(inverse, np.float64)

    def _left_out(self, setting: Setting, weights: Array, inverse: Array) -> Array:
        weights = weights + self._refitted(setting, inverse, self.delta - self.mean)
        return np.asarray(self.delta - weights / np.diag(inverse)[:, None])

    def _refitted(self, setting: Setting, inverse: Array, about: Array) -> Array:
        """Return what the weights lack because the mean still knows the one that is left out."""
        if not setting.centred or len(self.delta) < 2:
            return np.zeros_like(about)
        return np.asarray(inverse.sum(axis=1)[:, None] * about / (len(self.delta) - 1))

    def _chosen(self) -> list[Setting]:
        """Rank the settings by what they say of perturbations left out."""
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(len(self.names))[:_MOST])
        genes = np.argsort(-self.delta.var(axis=0), kind="stable")[:_GENES]
        real, unit = self.delta[rows][:, genes], max(float(self.delta[rows][:, genes].var()), 1e-12)
        own = self.targets.columns([self.names[row] for row in rows])
        place = np.full(self.delta.shape[1], -1)
        place[genes] = np.arange(len(genes))
        first = np.where(own[:, 0] >= 0, place[own[:, 0]], -1)
        found = []
        for setting in itertools.starmap(Setting, _GRID):
            kernel = self.kernel.of(setting)[np.ix_(rows, rows)]
            inverse = np.asarray(
                np.linalg.inv(kernel + setting.noise * np.eye(len(rows))), np.float64
            )
            about = real - self._centre(setting)[genes]
            refitted = self._refitted(setting, inverse, real - self.mean[genes])
            guess = real - (inverse @ about + refitted) / np.diag(inverse)[:, None]
            correlation = np.nan_to_num(vcc2025.pearson(real, guess)).mean()
            found.append((np.square(guess - real).mean() / unit - correlation, setting, guess))
            found = sorted(found, key=lambda one: one[0])[:_JUDGED]
        judged = [
            (rank - vcc2025.discrimination(vcc2025.distances(real, guess, first)).mean(), setting)
            for rank, setting, guess in found
        ]
        return [setting for _, setting in sorted(judged, key=lambda one: one[0])[:_AVERAGED]]


@dataclass(frozen=True)
class GpModel:
    """The kind of model, by name."""

    summary: str = "Gaussian process over sets of targets, in closed form"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Solved when loaded: a matter of seconds."""
        return True

    def load(self, run: Run | None, screen: Screen) -> GaussianProcess:
        """Solve it."""
        return GaussianProcess(screen)


gp = GpModel()
