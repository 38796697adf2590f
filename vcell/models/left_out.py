"""Predictions of training perturbations without what they must not know, in closed form.

A target that is held out is held out in every context, so its rows are left out together. P rows,
N genes; R rows that are asked, each with the number of the group that is left out with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_AT_ONCE = 500  # rows, of which what is in between is in memory


def numbered(names: Sequence[str]) -> Numbers:
    """Return (P,) a number for each name: equal where the perturbation is the same."""
    return np.asarray(np.unique(np.asarray(names, str), return_inverse=True)[1].ravel(), np.int64)


def groups(number: Numbers) -> Iterator[Numbers]:
    """Yield (M, S) the places of M groups of one size S, until all were yielded."""
    order = np.argsort(number, kind="stable")
    size = np.bincount(number)[number[order]]
    for one in np.unique(size):
        alike = order[size == one].reshape(-1, one)
        step = max(_AT_ONCE // one, 1)
        for start in range(0, len(alike), step):
            yield alike[start : start + step]


def mean_of_others(effects: Array, number: Numbers, rows: Numbers | None = None) -> Array:
    """Return (R, N): for each of some rows (all), the mean of those that are not of its group."""
    own = effects if rows is None else effects[rows]
    found, total = np.empty_like(own), effects.sum(axis=0)
    for at in groups(number):
        rest = max(len(effects) - at.shape[1], 1)
        found[at] = (total - own[at].sum(axis=1, keepdims=True)) / rest
    return found


def missed(
    inverse: Array, weights: Array, number: Numbers, *,
    about: Array | None = None, rows: Numbers | None = None,
) -> Array:  # fmt: skip
    """Return (R, N): by how much a process misses some rows (all) without their group.

    Parameters
    ----------
    inverse, weights
        (P, P) of the noisy kernel, and (P, N) its product with the effects.
    number
        (R,) the group of each row that is asked.
    about
        (P, N) effects about their mean, of a process about it: the mean must not know the group
        either. None of one about zero.
    rows
        (R,) which they are.
    """
    found = np.empty((len(number), weights.shape[1]))
    reach = inverse.sum(axis=1)
    for at in groups(number):
        own = at if rows is None else rows[at]
        off = weights[own]
        if about is not None:
            rest = max(len(about) - at.shape[1], 1)
            off += (reach[own] / rest)[:, :, None] * about[own].sum(axis=1, keepdims=True)
        if at.shape[1] == 1:
            off /= inverse[own, own][:, :, None]
            found[at] = off
        else:
            found[at] = np.linalg.solve(inverse[own[:, :, None], own[:, None, :]], off)
    return found
