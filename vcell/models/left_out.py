"""Closed-form predictions of training perturbations from the others.

A target that is held out is held out in every context, so its rows are left out together. P rows,
N genes; R rows to predict, each with the number of the group that is left out with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_AT_ONCE = 500  # rows per block, which bounds memory


def numbered(names: Sequence[str]) -> Numbers:
    """Return (P,) a number for each name: equal where the perturbation is the same."""
    return np.asarray(np.unique(np.asarray(names, str), return_inverse=True)[1].ravel(), np.int64)


def groups(number: Numbers) -> Iterator[Numbers]:
    """Yield arrays (M, S): the indices of the members of M groups of size S, for each size."""
    order = np.argsort(number, kind="stable")
    size = np.bincount(number)[number[order]]
    for one in np.unique(size):
        alike = order[size == one].reshape(-1, one)
        step = max(_AT_ONCE // one, 1)
        for start in range(0, len(alike), step):
            yield alike[start : start + step]


def mean_of_others(effects: Array, number: Numbers, rows: Numbers | None = None) -> Array:
    """Return (R, N): for each row, the mean of the rows that are not in its group."""
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
    """Return (R, N): the error of a Gaussian process on rows when their group is left out.

    Parameters
    ----------
    inverse, weights
        (P, P) of the noisy kernel, and (P, N) its product with the effects.
    number
        (R,) the group of each row to predict.
    about
        (P, N) effects about their mean, for a process about it: the mean must not include the
        group either. None for a process about zero.
    rows
        (R,) indices of the rows to predict; all by default.
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
