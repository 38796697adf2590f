"""How far predictions are believed, by what they say of perturbations that were left out.

Predictions are nested: no change, then the mean effect, then all that a model says. A share of the
way from one to the next is taken: the largest whose gain in PDS and MAE, as a verdict counts it, is
above `ERRORS` standard errors. Where none is, the simpler one answers, so that on noise a model
mostly says what the simplest does. The share is not the best one: models estimate how large effects
are, and to shrink them a second time costs PDS.

Perturbations are left out in folds, as where they are held out: whatever says the same of all of a
fold then has the PDS of chance. A mean that lacks one perturbation only would point away from it.
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

ERRORS = 1.5  # benchmarks/belief.py compares 0 to 2
FOLDS = 5
MOST = 250  # perturbations that are asked
_SHARES = (1.0, 0.75, 0.5, 0.25)


def asked(perturbation: Numbers) -> tuple[Numbers, Numbers]:
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
    """Return how far a model is believed over the mean effect, and so much over no change.

    Parameters
    ----------
    real, mean, guess
        (P, N) effects, their mean without each one's fold, and what is said without its fold.
    fold, context, names
        (P,) of each.
    own
        Puts in the change of own genes, which all say.
    """
    target, sets = own.screen.targets(names), [members(name) for name in names]

    def scores(effect: Array) -> dict[str, Array]:
        told = own.put_in(effect, names).astype(np.float64)
        found = {name: np.zeros(len(real)) for name in ("pds", "mae")}
        place = np.unique(np.stack([fold, context]), axis=1, return_inverse=True)[1].ravel()
        for one in np.unique(place):
            at = place == one
            for name, values in each(told[at], real[at], target[at]).items():
                if name in found:
                    found[name][at] = values
        return found

    level = {name: float(values.mean()) for name, values in scores(mean).items()}

    def share(simple: Array, other: Array) -> float:
        before = scores(simple)
        for share in _SHARES:
            gain = verdict.gain(scores(simple + share * (other - simple)), before, level)
            found = verdict.difference(gain, sets)
            if found.mean > ERRORS * found.error:  # NaN, so never, of one
                return share
        return 0.0

    beyond = share(mean, guess)
    return beyond, share(np.zeros_like(real), mean + beyond * (guess - mean))
