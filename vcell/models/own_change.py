"""How much a perturbation changes its own target genes, learnt from the training targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.screen.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen


class OwnChange:
    """The share of its control expression that a target keeps: the median of the training targets.

    Attributes
    ----------
    share
        Below 1 for knock-downs, above for activations; None where no measured gene was a target.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.control = screen.control.mean(axis=0)
        learnt = screen.rows(TRAIN)
        column = screen.columns(screen.perturbations[learnt].tolist())
        rows, places = np.nonzero(column >= 0)
        genes = column[rows, places]
        seen = self.control[genes] > 0
        self.share: float | None = None
        if seen.any():
            change = screen.delta[learnt[rows[seen]], genes[seen]]
            kept = np.median(1 + change / self.control[genes[seen]])
            self.share = float(np.clip(kept, 0.01, 100))

    def put_in(self, effect: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float32]:
        """Return effects (P, N) in which the change of each target gene is set."""
        predicted = effect.astype(np.float32)
        if self.share is not None:
            column = self.screen.columns(names)
            rows, places = np.nonzero(column >= 0)
            genes = column[rows, places]
            predicted[rows, genes] = (self.share - 1) * self.control[genes]
        return predicted
