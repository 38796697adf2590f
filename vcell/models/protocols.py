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
        """Return (P, N): the change of the mean log1p expression; NaN rows where unknown.

        `contexts` names the context of each; by default, the screen's first.
        """


@runtime_checkable
class Model(Protocol):
    """One kind of model, from any installed distribution."""

    summary: str

    def fit(self, run: Run, screen: Screen) -> bool:
        """Learn the screen, on every process of the run; False if it was interrupted."""

    def load(self, run: Run, screen: Screen) -> Predictor:
        """Return what a run has learnt.

        `screen` is the run's own or its `settled` copy, to which closed forms are refitted.
        """


@runtime_checkable
class Prepares(Protocol):
    """A model that decides settings, or refuses them, before there is a run."""

    def prepared(self, screen: Screen, config: Any, plan: Plan) -> dict[str, str]:
        """Return text files for the run, by name."""


@runtime_checkable
class Uncertain(Protocol):
    """A predictor that estimates its errors."""

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.floating] | None:
        """Return (P, N) standard deviations; None where unknown."""


@runtime_checkable
class LeavesOneOut(Protocol):
    """A predictor that can predict its training rows as if it had not seen them."""

    def loo(self) -> NDArray[np.floating]:
        """Return (P, N): each training row, predicted from the others."""


@runtime_checkable
class Disagrees(Protocol):
    """A predictor with two heads, which may disagree."""

    def heads(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.floating] | None:
        """Return (P,): the root mean square, over the genes, of the disagreement."""


@runtime_checkable
class Explains(Protocol):
    """A predictor that shows what its predictions depend on."""

    def explain(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> Explanation:
        """Return the importance of genes, averaged over perturbations."""


@dataclass(frozen=True)
class Explanation:
    """What a model's predictions depend on, averaged over perturbations.

    Attributes
    ----------
    genes
        (T,) the genes that the model sees.
    importance
        (T,) how much each matters.
    attention
        (T, T) attention of each gene to each; None where there are too many genes to store it, or
        the model has no attention.
    """

    genes: NDArray[np.str_]
    importance: NDArray[np.float64]
    attention: NDArray[np.float32] | None = None
