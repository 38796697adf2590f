"""What a perturbation model must have, and what its predictor must answer.

Shapes: P perturbations, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vcell.runs import Run
    from vcell.screen import Screen


class Predictor(Protocol):
    """A trained model."""

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return (P, N): the change of the mean log1p expression; NaN rows where it cannot say.

        `contexts` names the context of each; without it, the screen's first is meant.
        """


@runtime_checkable
class Model(Protocol):
    """One kind of model, by whichever distribution brings it."""

    summary: str

    def fit(self, run: Run, screen: Screen) -> bool:
        """Learn the screen, on every process of the run; False if it was asked to end early."""

    def load(self, run: Run, screen: Screen) -> Predictor:
        """Return what a run has learnt.

        `screen` is the run's own, or that `settled`, to which closed forms are then fitted anew.
        """
