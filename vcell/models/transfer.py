"""Effects of a perturbation in other screens, weighted by how well they agree with this one.

The effect of a perturbation that a prior screen s has measured is expected to be

    mean + sum over s of b_s (e_s - mean of e_s),

where e_s is its effect there. The weights b come from ridge regression on training perturbations,
in closed form, with the noise level as penalty. A screen whose weight is not two standard errors
above 0 gets 0, so that cell lines that do not agree add nothing. P perturbations, N genes, S
screens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.screen.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen

    Array = NDArray[np.float64]

_ERRORS = 2.0
_FEWEST = 4  # fewest training perturbations that a prior screen must share


class Transfer:
    """Fitted to the training perturbations of a screen.

    Attributes
    ----------
    weights
        (S,) weight of each prior screen.
    """

    def __init__(self, screen: Screen) -> None:
        self.n_genes = len(screen.genes)
        self.effects: list[dict[str, Array]] = []
        for source in range(len(screen.prior_sources)):
            rows = np.flatnonzero(screen.prior_source == source)
            effect = screen.prior_effects[rows].astype(np.float64)
            centred = effect - effect.mean(axis=0)
            names = screen.prior_names[rows].tolist()
            self.effects.append(dict(zip(names, centred, strict=True)))
        self.weights = np.zeros(len(self.effects))
        if self.effects:
            self._fit(screen)

    def of(self, names: Sequence[str]) -> Array:
        """Return (P, N): the expected effect beyond the mean; 0 where no screen has it."""
        found = np.zeros((len(names), self.n_genes))
        for weight, effects in zip(self.weights, self.effects, strict=True):
            for i, name in enumerate(names):
                if weight and name in effects:
                    found[i] += weight * effects[name]
        return found

    def _fit(self, screen: Screen) -> None:
        rows = screen.rows(TRAIN)
        names = screen.perturbations[rows].tolist()
        left = screen.delta[rows] - screen.delta[rows].mean(axis=0, dtype=np.float64)
        own = screen.columns(names)  # the knock-down itself is known without another screen
        for row, genes in zip(left, own, strict=True):
            row[genes[genes >= 0]] = 0
        for source, effects in enumerate(self.effects):
            shared = [i for i, name in enumerate(names) if name in effects]
            if len(shared) < _FEWEST:
                continue
            x = np.array([effects[names[i]] for i in shared])
            for row, genes in zip(x, own[shared], strict=True):
                row[genes[genes >= 0]] = 0
            y = left[shared]
            # a perturbation counts as one observation of b: its genes are not independent
            size, agree = np.square(x).sum(axis=1), (x * y).sum(axis=1)
            total = max(float(size.sum()), 1e-12)
            weight = float(agree.sum() / total)
            error = float(np.sqrt(np.square(agree - weight * size).sum()) / total)
            if weight > _ERRORS * error:
                self.weights[source] = weight * weight**2 / (weight**2 + error**2)
                left[shared] -= self.weights[source] * x
