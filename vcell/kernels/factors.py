"""Draw factors of nodes, one after another, given all the others (Gibbs sampling).

The value of a set is the sum of its nodes' effects, of the signed products over pairs of its nodes
for each factor, and of noise. Given all others, an effect or a factor's entry is normal.
Legend: T sets, S nodes of a set at most (-1 beyond its end), N nodes, R factors. Serial.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def draw_effects(
    indptr: Array, sets: Array, left: Array, effects: Array, precision: Array,
    by_noise: float, drawn: Array,
) -> None:  # fmt: skip
    """Draw a new effect for every node, and update the residuals `left`.

    Parameters
    ----------
    indptr, sets
        CSR: the sets that each node is in.
    left
        (T,) residuals: values minus everything explained.
    effects
        (N,) effects, updated.
    precision
        (N, N) inverse of the effects' covariance.
    by_noise
        One over the variance of noise.
    drawn
        (N,) standard normal.
    """
    for i in range(effects.shape[0]):
        mass = precision[i, i]
        pull = mass * effects[i]
        for j in range(effects.shape[0]):
            pull -= precision[i, j] * effects[j]
        for at in range(indptr[i], indptr[i + 1]):
            mass += by_noise
            pull += by_noise * (left[sets[at]] + effects[i])
        new = pull / mass + drawn[i] / np.sqrt(mass)
        for at in range(indptr[i], indptr[i + 1]):
            left[sets[at]] += effects[i] - new
        effects[i] = new


@njit(nogil=True, cache=True)
def draw_factors(  # noqa: PLR0913, PLR0917 - a kernel takes arrays, one by one
    members: Array, indptr: Array, sets: Array, left: Array, factors: Array, precision: Array,
    scale: Array, signs: Array, by_noise: float, drawn: Array,
) -> None:  # fmt: skip
    """Draw new entries for every factor; other arguments as in `draw_effects`.

    Parameters
    ----------
    members
        (T, S) nodes of each set.
    factors, drawn
        (R, N) factors, updated, and standard normal numbers.
    precision, scale
        (N, N) shared by all factors; (R,) multiplies it.
    signs
        (R,) 1 or -1.
    """
    total = np.empty(members.shape[0])
    for r in range(factors.shape[0]):
        factor, sign = factors[r], signs[r]
        for t in range(members.shape[0]):
            total[t] = 0.0
            for s in range(members.shape[1]):
                if members[t, s] >= 0:
                    total[t] += factor[members[t, s]]
        for i in range(factor.shape[0]):
            old = factor[i]
            mass = scale[r] * precision[i, i]
            pull = mass * old
            near = 0.0
            for j in range(factor.shape[0]):
                near += precision[i, j] * factor[j]
            pull -= scale[r] * near
            for at in range(indptr[i], indptr[i + 1]):
                t = sets[at]
                slope = sign * (total[t] - old)
                mass += by_noise * slope * slope
                pull += by_noise * slope * (left[t] + slope * old)
            new = pull / mass + drawn[r, i] / np.sqrt(mass)
            for at in range(indptr[i], indptr[i + 1]):
                t = sets[at]
                left[t] -= sign * (total[t] - old) * (new - old)
                total[t] += new - old
            factor[i] = new
