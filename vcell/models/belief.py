"""How far to trust a model's predictions, measured on perturbations that were left out.

Predictions are nested: no change, then the mean effect, then the model. A step from one to the
next is taken in part: the largest share whose gain in PDS and MAE, as a verdict counts it, is more
than `ERRORS` standard errors above 0. If there is none, the simpler prediction is used, so that on
noise a model mostly answers as the simplest does. The share is not the best one: models estimate
how large effects are, and shrinking them again costs PDS.

Perturbations are left out in folds, as in held-out scores: a prediction that is the same for all
of a fold then has the PDS of chance. A mean that lacks one perturbation would point away from it.
P rows, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.metrics import verdict
from vcell.models.scoring import each
from vcell.screen.targets import members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models.own_change import OwnChange

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

ERRORS = 1.0  # benchmarks/belief.py compares 0 to 2
FOLDS = 5
MOST = 250  # perturbations that are scored
_SHARES = (1.0, 0.75, 0.5, 0.25)


def drawn(perturbation: Numbers) -> tuple[Numbers, Numbers]:
    """Draw rows of at most `MOST` perturbations (P,); return them and the fold of each."""
    drawn = np.random.default_rng(0).permutation(perturbation.max(initial=-1) + 1)[:MOST]
    fold = np.full(perturbation.max(initial=-1) + 1, -1)
    fold[drawn] = np.arange(len(drawn)) % FOLDS
    rows = np.flatnonzero(fold[perturbation] >= 0)
    return rows, fold[perturbation[rows]]


def believed(
    real: Array,
    mean: Array,
    guess: Array,
    fold: Numbers,
    context: Numbers,
    own: OwnChange,
    names: Sequence[str],
) -> tuple[float, float]:
    """Return the shares taken of the model over the mean effect, and of that over no change.

    Parameters
    ----------
    real, mean, guess
        (P, N) effects; their mean and the model's prediction, both without each one's fold.
    fold, context, names
        (P,) of each row.
    own
        Sets the change of the target genes themselves, the same in all predictions.
    """
    target, sets = own.screen.targets(names), [members(name) for name in names]

    def scores(effect: Array) -> dict[str, Array]:
        predicted = own.put_in(effect, names).astype(np.float64)
        found = {name: np.zeros(len(real)) for name in ("pds", "mae")}
        place = np.unique(np.stack([fold, context]), axis=1, return_inverse=True)[1].ravel()
        for one in np.unique(place):
            at = place == one
            for name, values in each(predicted[at], real[at], target[at]).items():
                if name in found:
                    found[name][at] = values
        return found

    level = {name: float(values.mean()) for name, values in scores(mean).items()}

    def share(simple: Array, other: Array) -> float:
        before = scores(simple)
        for share in _SHARES:
            gain = verdict.gain(scores(simple + share * (other - simple)), before, level)
            found = verdict.difference(gain, sets)
            if found.mean > ERRORS * found.error:  # NaN for a single one: not taken
                return share
        return 0.0

    beyond = share(mean, guess)
    return beyond, share(np.zeros_like(real), mean + beyond * (guess - mean))
