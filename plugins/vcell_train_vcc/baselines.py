"""What every model is measured against: the mean effect, and ridge regression on the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell_train_vcc.split import TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen
    from vcell.runs import Run

_PENALTIES = 10.0 ** np.arange(-1, 4.01, 0.5)


@dataclass(frozen=True)
class Mean:
    """The same effect for every perturbation: the mean of those learnt from."""

    summary: str = "the mean effect of the training perturbations, whatever the target"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Nothing to learn beyond the screen."""
        return True

    def load(self, run: Run | None, screen: Screen) -> MeanPredictor:
        """Return the predictor."""
        return MeanPredictor(screen)


class MeanPredictor:
    """Answers with the mean effect."""

    def __init__(self, screen: Screen) -> None:
        self.mean = screen.delta[screen.rows(TRAIN)].mean(axis=0)

    def predict(self, perturbations: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean effect for each."""
        return np.tile(self.mean.astype(np.float32), (len(perturbations), 1))


@dataclass(frozen=True)
class Ridge:
    """Linear regression of the effects on the target's features, penalty chosen by validation."""

    summary: str = "ridge regression of the effect on the target's features"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Solved when loaded: a matter of milliseconds."""
        return True

    def load(self, run: Run | None, screen: Screen) -> RidgePredictor:
        """Solve it."""
        return RidgePredictor(screen)


class RidgePredictor:
    """Answers with the regression; NaN where the target has no features."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        rows, chosen_by = screen.rows(TRAIN), screen.rows(VALIDATION)
        self.mean = screen.delta[rows].mean(axis=0)
        x = self._x(rows)
        self.centre = x.mean(axis=0)
        u, s, vt = np.linalg.svd(x - self.centre, full_matrices=False)
        scores = u.T @ (screen.delta[rows] - self.mean)

        def weights(penalty: float) -> NDArray[np.float64]:
            return np.asarray(vt.T @ ((s / (s**2 + penalty))[:, None] * scores))

        held = self._x(chosen_by) - self.centre
        errors = [
            np.abs(self.mean + held @ weights(penalty) - screen.delta[chosen_by]).mean()
            for penalty in _PENALTIES
        ]
        self.weights = weights(float(_PENALTIES[int(np.argmin(errors))]))

    def _x(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        names = [str(name) for name in self.screen.perturbations[rows]]
        return self.screen.features[self.screen.targets(names)].astype(np.float64)

    def predict(self, perturbations: Sequence[str]) -> NDArray[np.float32]:
        """Return mean + (features - centre) @ weights."""
        x = self.screen.features[self.screen.targets(perturbations)] - self.centre
        effect = self.mean + x @ self.weights
        effect[~self.screen.known(perturbations)] = np.nan
        return np.asarray(effect, np.float32)


mean, ridge = Mean(), Ridge()
