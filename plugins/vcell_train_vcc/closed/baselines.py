"""The baselines of every model, in numpy. Each is solved in closed form when it is loaded.

Baselines that use the target also predict the change of the target's own gene, learned from the
training perturbations as in `gp`. A model must therefore predict more than that.

P perturbations, N genes, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.models import Predictor, Screen, members
from vcell.models.left_out import groups, numbered
from vcell.models.own_change import OwnChange
from vcell.models.scoring import Judge
from vcell.screen.split import TRAIN
from vcell.screen.targets import single_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.runs import Run

    Array = NDArray[np.float64]

_PENALTIES = 10.0 ** np.arange(-3, 4.01, 0.5)
_NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20)
_JUDGED_ROWS, _JUDGED_GENES = 400, 1000  # perturbations and genes that rank the settings


@dataclass(frozen=True)
class Baseline:
    """A model that needs no training."""

    summary: str
    solve: Callable[[Screen], Predictor]

    def fit(self, run: Run, screen: Screen) -> bool:
        """Do nothing: the model is solved when it is loaded, in milliseconds."""
        return True

    def load(self, run: Run | None, screen: Screen) -> Predictor:
        """Solve the model."""
        return self.solve(screen)


class MeanEffect:
    """The same effect for every target, optionally one for each context.

    Parameters
    ----------
    screen
        The training data.
    shrink
        Count the controls as one more group with no effect, as the challenge's baseline does.
    by_context
        Take the mean of each context.
    own
        Predict the change of the perturbation's own genes, learned from the training targets.
    nothing
        Predict no change of any other gene.
    """

    def __init__(
        self,
        screen: Screen,
        *,
        shrink: bool = False,
        by_context: bool = False,
        own: bool = False,
        nothing: bool = False,
    ) -> None:
        self.own = OwnChange(screen) if own else None
        rows = screen.rows(TRAIN)
        n = len(rows) + 1 if shrink else len(rows)
        overall = screen.delta[rows].sum(axis=0, dtype=np.float64) / n * (not nothing)
        self.context = {str(name): i for i, name in enumerate(screen.contexts)}
        self.effect = np.tile(overall, (len(self.context), 1))
        for c in range(len(self.effect)) if by_context else ():
            its = rows[screen.context[rows] == c]
            if len(its):
                self.effect[c] = screen.delta[its].mean(axis=0, dtype=np.float64)

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the mean effect for each perturbation."""
        which = [self.context[name] for name in contexts] if contexts else [0] * len(perturbations)
        effect = self.effect[which].astype(np.float32)
        return effect if self.own is None else self.own.put_in(effect, perturbations)


class Ridge:
    """Linear regression on unit feature vectors of the targets, penalty by leave-one-out error."""

    def __init__(self, screen: Screen) -> None:
        self.screen, rows, self.own = screen, screen.rows(TRAIN), OwnChange(screen)
        names = screen.perturbations[rows].tolist()
        x = self._inputs(names)
        y = screen.denoised(rows)
        self.mean, self.centre = y.mean(axis=0), x.mean(axis=0)
        u, s, vt = np.linalg.svd(x - self.centre, full_matrices=False)
        y -= self.mean
        judge = _judge(screen, rows)
        penalty = min(
            _PENALTIES,
            key=lambda p: judge.loss(self._left_out(u, s, y, p, judge, numbered(names))),
        )
        self.weights = vt.T @ ((s / (s**2 + penalty))[:, None] * (u.T @ y))

    def _left_out(self, u: Array, s: Array, y: Array, p: float, judge: Judge, number: Any) -> Array:
        """Return predictions of `judge.rows`, with each perturbation left out of fit and mean."""
        shrink = s**2 / (s**2 + p)
        y, some = y[:, judge.genes], judge.rows
        left = y - u @ (shrink[:, None] * (u.T @ y))
        for at in groups(number):
            own = np.einsum("msf,f,mtf->mst", u[at], shrink, u[at]) + 1 / len(u)
            left[at] = np.linalg.pinv(np.eye(at.shape[1]) - own, rcond=1e-6) @ left[at]
        return np.asarray(self.mean[judge.genes] + y[some] - left[some])

    def _inputs(self, names: Sequence[str]) -> Array:
        genes = sorted({gene for one in self.screen.members(names) for gene in one})
        unit = dict(zip(genes, _unit(self.screen.pooled(genes)), strict=True))
        width = self.screen.features.shape[1]
        sums = [sum((unit[gene] for gene in members(str(one))), np.zeros(width)) for one in names]
        return np.array(sums).reshape(len(names), width)

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return mean + (features - centre) @ weights; NaN where a target has no features."""
        effect = self.mean + (self._inputs(perturbations) - self.centre) @ self.weights
        effect[~self.screen.known(perturbations)] = np.nan
        return self.own.put_in(effect, perturbations)


class Additive:
    """The sum of the targets' single effects; a target without one counts as the mean effect."""

    def __init__(self, screen: Screen) -> None:
        rows = screen.rows(TRAIN)
        delta, sets = screen.delta[rows], screen.members(screen.perturbations[rows].tolist())
        self.mean = delta.mean(axis=0, dtype=np.float64)
        self.single = {
            gene: delta[own].mean(axis=0, dtype=np.float64)
            for gene, own in single_rows(sets).items()
        }

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the sums, or the mean effect where no target has a single effect."""
        found = []
        for name in perturbations:
            genes = members(name)
            known = any(gene in self.single for gene in genes)
            parts = [self.single.get(gene, self.mean) for gene in genes] if known else [self.mean]
            found.append(np.sum(parts, axis=0))
        return np.array(found, np.float32).reshape(len(perturbations), len(self.mean))


class Neighbours:
    """The mean effect of the perturbations with the most similar features (cosine)."""

    def __init__(self, screen: Screen) -> None:
        self.screen, rows, self.own = screen, screen.rows(TRAIN), OwnChange(screen)
        self.delta = screen.denoised(rows)
        names = screen.perturbations[rows].tolist()
        self.unit, number = _unit(screen.pooled(names)), numbered(names)
        likeness = self.unit @ self.unit.T
        likeness[number[:, None] == number] = -np.inf  # leave it out in all contexts
        order = np.argsort(-likeness, axis=1, kind="stable")
        order = order[:, : len(order) - np.bincount(number).max(initial=1)]
        able = [k for k in _NEIGHBOURS if k <= order.shape[1]] or [1]
        judge = _judge(screen, rows)
        self.k = min(able, key=lambda k: judge.loss(self._of(order[judge.rows, :k], judge.genes)))

    def _of(self, near: NDArray[np.int64], genes: Any) -> Array:
        return np.array([self.delta[some][:, genes].mean(axis=0) for some in near])

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the means of the k nearest; NaN where a target has no features."""
        likeness = _unit(self.screen.pooled(perturbations)) @ self.unit.T
        near = np.argsort(-likeness, axis=1, kind="stable")[:, : self.k]
        effect = self._of(near, slice(None))
        effect[~self.screen.known(perturbations)] = np.nan
        return self.own.put_in(effect, perturbations)


def _judge(screen: Screen, rows: NDArray[np.int64]) -> Judge:
    """Return a judge that ranks settings by leave-one-out predictions of the training data."""
    names = screen.perturbations[rows].tolist()
    return Judge(screen.denoised(rows), screen.targets(names), _JUDGED_ROWS, _JUDGED_GENES)


def _unit(x: NDArray[np.float32]) -> Array:
    wide = x.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


mean = Baseline(
    "the challenge's cell mean: the mean profile of all groups, the controls among them",
    lambda screen: MeanEffect(screen, shrink=True),
)
perturbed_mean = Baseline("the mean effect of the training perturbations", MeanEffect)
perturbed_mean_own = Baseline(
    "the mean effect of the training perturbations, and the change of the target's own gene",
    lambda screen: MeanEffect(screen, own=True),
)
no_change = Baseline(
    "the controls, with the change of the target's own gene",
    lambda screen: MeanEffect(screen, own=True, nothing=True),
)
context_mean = Baseline(
    "the mean training effect in each context", lambda screen: MeanEffect(screen, by_context=True)
)
ridge = Baseline("ridge regression of the effect on the targets' features", Ridge)
additive = Baseline("the sum of the single effects of the targets", Additive)
knn = Baseline("the mean effect of the nearest perturbations by features", Neighbours)
