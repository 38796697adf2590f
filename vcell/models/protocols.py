"""The interface of a perturbation model and of its predictor.

Shapes: P perturbations, N genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.launch import Plan
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


@runtime_checkable
class Prepares(Protocol):
    """A model that decides settings, or refuses them, before there is a run."""

    def prepared(self, screen: Screen, config: Any, plan: Plan) -> dict[str, str]:
        """Return files of the run, by name: their text."""


@runtime_checkable
class Uncertain(Protocol):
    """A predictor that says how far it may be off."""

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.floating] | None:
        """Return (P, N) standard deviations; None where it cannot say."""


@runtime_checkable
class LeavesOneOut(Protocol):
    """A predictor that can say what it would have said of what it learnt from."""

    def loo(self) -> NDArray[np.floating]:
        """Return (P, N): each training row, predicted from the others."""


@runtime_checkable
class Disagrees(Protocol):
    """A predictor that answers in two ways, which may disagree."""

    def heads(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.floating] | None:
        """Return (P,): the root mean square, over the genes, of the disagreement."""


@runtime_checkable
class Explains(Protocol):
    """A predictor that says what it looks at."""

    def explain(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> Explanation:
        """Return where it looks, averaged over perturbations."""


@dataclass(frozen=True)
class Explanation:
    """What a model looks at, averaged over perturbations.

    Attributes
    ----------
    genes
        (T,) the genes that it sees.
    importance
        (T,) how much each matters.
    attention
        (T, T) how much each attends to each; None where there are too many to keep, or no
        attention.
    """

    genes: NDArray[np.str_]
    importance: NDArray[np.float64]
    attention: NDArray[np.float32] | None = None
