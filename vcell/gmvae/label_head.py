"""The label head of a run: logistic regressions on latent means and on principal components.

The network was trained on the shown labels. If a label has only a few shown cells, it places these
cells apart from all others of their type, and a head fitted to them alone rarely finds the type
again. Principal components do not depend on labels. So heads on components, of genes as they are
and of scaled genes, also guess the labels of cells whose label is not shown, the head on latent
means is fitted to these guesses too, and all heads are multiplied. N cells, D dimensions, P
components, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax, softmax

from vcell.gmvae.head import Guesses, Head, fit, temperature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST = 10_000  # maximum number of unlabelled cells to guess labels of
#: Number of labelled cells to fit to, and the fewest of each label. 80,000 cells with 50 labels
#: take 90 s; fitted to 30,000 of them instead, macro-F1 was lower by .003 (docs/benchmarks.md).
LABELLED, FEWEST = 100_000, 200


@dataclass(frozen=True)
class LabelHead:
    """Heads on latent means and on components, and the temperature of their product.

    Attributes
    ----------
    latent
        Head on latent means, with its own temperature.
    components
        Heads on the parts of the principal components, each with its own temperature.
    temperature
        Divides the sum of their logits; learnt on cells that none was fitted to.
    """

    latent: Head
    components: tuple[Head, ...] = ()
    temperature: float = 2.0

    def log_probabilities(self, mean: Array, parts: Sequence[Array] = ()) -> Array:
        """Return (N, K), from latent means alone without the parts of the components."""
        if not parts:
            return self.latent.log_probabilities(mean)
        every = self.latent.logits(mean) + _summed(self.components, parts)
        found: Array = log_softmax(every / self.temperature, axis=1)
        return found


def _summed(heads: Sequence[Head], parts: Sequence[Array]) -> Array:
    total: Array = np.sum([h.logits(x) for h, x in zip(heads, parts, strict=True)], axis=0)
    return total


def drawn_from(labels: Array, seed: int) -> tuple[Array, Array]:
    """Draw the labelled cells to fit to.

    Returns
    -------
    rows, weight
        Their positions in `labels`, ascending, where -1 is no label; and how many cells of its
        label each stands for, so that labels count by their share whatever was drawn of them.
    """
    rows = np.flatnonzero(labels >= 0)
    count = np.bincount(labels[rows])
    taken = np.ceil(count * min(LABELLED / max(len(rows), 1), 1.0)).astype(np.int64)
    taken = np.minimum(np.maximum(taken, FEWEST), count)
    order = np.random.default_rng((seed, 0x1ABE1)).permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    rows = np.sort(order[place < taken[labels[order]]])
    return rows, (count / np.maximum(taken, 1))[labels[rows]]


def _heads(
    mean: Array,
    parts: Sequence[Array],
    labels: Array,
    rows: Array,
    free: Array,
    n_labels: int,
    each: Array,
) -> tuple[Head, tuple[Head, ...]]:
    """Fit all heads to the labelled cells `rows`; the labels of `free` cells are guessed."""
    shown, own = labels[rows], each[rows]
    others = tuple(fit(x[rows], shown, n_labels, weight=own) for x in parts)
    guesses = None
    if len(free):
        # all guesses together weigh at most as much as the labels
        weight = min(own.sum() / len(free), 1.0)
        logits = _summed(others, [x[free] for x in parts]) / len(parts)
        guesses = Guesses(mean[free], softmax(logits, axis=1), weight)
    return fit(mean[rows], shown, n_labels, guesses=guesses, weight=own), others


def fit_heads(
    mean: Array,
    parts: Sequence[Array],
    labels: Array,
    n_labels: int,
    apart: Array,
    weight: Array | None = None,
) -> LabelHead:
    """Fit to latent means (N, D) and parts of the components (N, P) of training cells.

    `labels` are -1 if not shown, and cells that show one count by their `weight` (N,). Temperatures
    are learnt on the cells `apart` (N,), by heads that were fitted without them.
    """
    rows, free = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    each = np.ones(len(labels)) if weight is None else weight
    latent, others = _heads(mean, parts, labels, rows, free, n_labels, each)
    judged, rest = np.flatnonzero(apart), rows[~apart[rows]]
    if not len(judged) or not len(rest):
        return LabelHead(latent, others, 1.0 + len(others))
    one, more = _heads(mean, parts, labels, rest, free, n_labels, each)
    tables = [one.logits(mean[judged])]
    tables += [head.logits(x[judged]) for head, x in zip(more, parts, strict=True)]
    own = [temperature(table, labels[judged]) for table in tables]
    return LabelHead(
        latent.at(own[0]),
        tuple(head.at(t) for head, t in zip(others, own[1:], strict=True)),
        temperature(np.sum(tables, axis=0), labels[judged]),
    )
