"""What every model is measured against, in plain numpy: all are solved when loaded.

P perturbations, N genes, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell.models import Predictor, Screen, members
from vcell_train_vcc.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.runs import Run

    Array = NDArray[np.float64]

_PENALTIES = 10.0 ** np.arange(-1, 6.01, 0.5)
_NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20)


@dataclass(frozen=True)
class Baseline:
    """A kind of model that needs no training beyond the screen."""

    summary: str
    solve: Callable[[Screen], Predictor]

    def fit(self, run: Run, screen: Screen) -> bool:
        """Nothing to do: it is solved when loaded, a matter of milliseconds."""
        return True

    def load(self, run: Run | None, screen: Screen) -> Predictor:
        """Solve it."""
        return self.solve(screen)


class MeanEffect:
    """Answers with the same effect whatever the target, per context where asked."""

    def __init__(self, screen: Screen, *, shrink: bool = False, by_context: bool = False) -> None:
        rows = screen.rows(TRAIN)
        n = len(rows) + 1 if shrink else len(rows)
        overall = screen.delta[rows].sum(axis=0, dtype=np.float64) / n
        self.context = {str(name): i for i, name in enumerate(screen.contexts)}
        self.effect = np.tile(overall, (len(self.context), 1))
        for c in range(len(self.effect)) if by_context else ():
            own = rows[screen.context[rows] == c]
            if len(own):
                self.effect[c] = screen.delta[own].mean(axis=0, dtype=np.float64)

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return it for each."""
        which = [self.context[name] for name in contexts] if contexts else [0] * len(perturbations)
        return self.effect[which].astype(np.float32)


class Ridge:
    """Linear regression on the targets' features, penalty by leave-one-out error."""

    def __init__(self, screen: Screen) -> None:
        self.screen, rows = screen, screen.rows(TRAIN)
        x = screen.pooled(screen.perturbations[rows].tolist()).astype(np.float64)
        self.mean, self.centre = screen.delta[rows].mean(axis=0, dtype=np.float64), x.mean(axis=0)
        u, s, vt = np.linalg.svd(x - self.centre, full_matrices=False)
        y = screen.delta[rows] - self.mean
        scores = u.T @ y
        penalty = min(_PENALTIES, key=lambda p: self._left_out_error(u, s, scores, y, p))
        self.weights = vt.T @ ((s / (s**2 + penalty))[:, None] * scores)

    @staticmethod
    def _left_out_error(u: Array, s: Array, scores: Array, y: Array, penalty: float) -> float:
        shrink = s**2 / (s**2 + penalty)
        fitted = u @ (shrink[:, None] * scores)
        leverage = np.square(u) @ shrink + 1 / len(u)  # the mean is fitted as well
        left = (y - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
        return float(np.square(left).mean())

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return mean + (features - centre) @ weights; NaN where a target has no features."""
        effect = self.mean + (self.screen.pooled(perturbations) - self.centre) @ self.weights
        effect[~self.screen.known(perturbations)] = np.nan
        return np.asarray(effect, np.float32)


class Additive:
    """The sum of the single effects that were learnt; the mean effect for a target without one."""

    def __init__(self, screen: Screen) -> None:
        rows = screen.rows(TRAIN)
        self.mean = screen.delta[rows].mean(axis=0, dtype=np.float64)
        self.single: dict[str, Array] = {}
        for gene in {
            one[0] for name in screen.perturbations[rows] if len(one := members(name)) == 1
        }:
            own = [row for row in rows if members(str(screen.perturbations[row])) == (gene,)]
            self.single[gene] = screen.delta[own].mean(axis=0, dtype=np.float64)

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the sums; the mean effect where no target has a single effect."""
        found = []
        for name in perturbations:
            genes = members(name)
            known = any(gene in self.single for gene in genes)
            parts = [self.single.get(gene, self.mean) for gene in genes] if known else [self.mean]
            found.append(np.sum(parts, axis=0))
        return np.array(found, np.float32).reshape(len(perturbations), len(self.mean))


class Neighbours:
    """The mean effect of the perturbations whose features point the same way."""

    def __init__(self, screen: Screen) -> None:
        self.screen, rows = screen, screen.rows(TRAIN)
        self.delta = screen.delta[rows].astype(np.float64)
        self.unit = _unit(screen.pooled(screen.perturbations[rows].tolist()))
        likeness = self.unit @ self.unit.T
        np.fill_diagonal(likeness, -np.inf)
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :-1]
        able = [k for k in _NEIGHBOURS if k <= order.shape[1]] or [1]
        errors = [
            np.square(np.array([self.delta[near[:k]].mean(axis=0) for near in order]) - self.delta)
            for k in able
        ]
        self.k = able[int(np.argmin([error.mean() for error in errors]))]

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the means of the k nearest; NaN where a target has no features."""
        likeness = _unit(self.screen.pooled(perturbations)) @ self.unit.T
        near = np.argsort(-likeness, axis=1, kind="stable")[:, : self.k]
        effect = self.delta[near].mean(axis=1)
        effect[~self.screen.known(perturbations)] = np.nan
        return np.asarray(effect, np.float32)


def _unit(x: NDArray[np.float32]) -> Array:
    wide = x.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


mean = Baseline(
    "the challenge's cell mean: the mean profile of all groups, the controls among them",
    lambda screen: MeanEffect(screen, shrink=True),
)
perturbed_mean = Baseline("the mean effect of the training perturbations", MeanEffect)
context_mean = Baseline(
    "the mean training effect in each context", lambda screen: MeanEffect(screen, by_context=True)
)
ridge = Baseline("ridge regression of the effect on the targets' features", Ridge)
additive = Baseline("the sum of the single effects of the targets", Additive)
knn = Baseline("the mean effect of the nearest perturbations by features", Neighbours)
