"""The label head of a run: logistic regression on latent means and on principal components.

The network was trained on the shown labels. If a label has only a few shown cells, it places these
cells apart from all others of their type, and a head fitted to them alone rarely finds the type
again. Principal components do not depend on labels. So the head on components also guesses the
labels of cells whose label is not shown, the head on latent means is fitted to these guesses too,
and the two heads are multiplied. N cells, D dimensions, P components, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from vcell.gmvae.head import Guesses, Head, fit, temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST = 10_000  # maximum number of unlabelled cells to guess labels of


@dataclass(frozen=True)
class LabelHead:
    """Two heads, and the temperature of their product.

    Attributes
    ----------
    latent, components
        Heads on latent means and on principal components, each with its own temperature.
    temperature
        Divides the sum of their logits; learnt on cells that neither was fitted to.
    """

    latent: Head
    components: Head | None = None
    temperature: float = 2.0

    def log_probabilities(self, mean: Array, components: Array | None = None) -> Array:
        """Return (N, K), from latent means alone if there are no components."""
        if self.components is None or components is None:
            return self.latent.log_probabilities(mean)
        both = self.latent.logits(mean) + self.components.logits(components)
        found: Array = log_softmax(both / self.temperature, axis=1)
        return found


def _pair(
    mean: Array, components: Array, labels: Array, rows: Array, free: Array, n_labels: int
) -> tuple[Head, Head]:
    """Fit both heads to the labelled cells `rows`; the labels of `free` cells are guessed."""
    shown = labels[rows]
    other = fit(components[rows], shown, n_labels)
    guesses = None
    if len(free):
        # all guesses together weigh at most as much as the labels
        weight = min(len(rows) / len(free), 1.0)
        likely = np.exp(other.log_probabilities(components[free]))
        guesses = Guesses(mean[free], likely, weight)
    return fit(mean[rows], shown, n_labels, guesses=guesses), other


def fit_heads(
    mean: Array, components: Array, labels: Array, n_labels: int, apart: Array
) -> LabelHead:
    """Fit to latent means (N, D) and components (N, P) of training cells.

    `labels` are -1 if not shown. Temperatures are learnt on the cells `apart` (N,), by heads that
    were fitted without them.
    """
    rows, free = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    latent, other = _pair(mean, components, labels, rows, free, n_labels)
    judged, rest = np.flatnonzero(apart), rows[~apart[rows]]
    if not len(judged) or not len(rest):
        return LabelHead(latent, other)
    pair = _pair(mean, components, labels, rest, free, n_labels)
    one, two = pair[0].logits(mean[judged]), pair[1].logits(components[judged])
    truth = labels[judged]
    return LabelHead(
        latent.at(temperature(one, truth)), other.at(temperature(two, truth)),
        temperature(one + two, truth),
    )  # fmt: skip
