"""Folds of patients: each patient in one, outcomes balanced, independent of the order of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def dealt(
    patients: Sequence[str], outcome: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each patient; outcomes are distributed evenly."""
    order = np.array(sorted(range(len(patients)), key=lambda i: patients[i]), np.int64)
    rng = np.random.default_rng((seed, 0xBA7C))
    fold, begin = np.empty(len(patients), np.int64), 0
    for code in np.unique(outcome):
        own = rng.permutation(order[outcome[order] == code])
        fold[own] = (np.arange(len(own)) + begin) % folds
        begin += len(own)  # the next outcome starts where this one ended, for folds of equal size
    return fold


def possible(outcome: NDArray[np.int64], requested: int, *, quiet: bool = False) -> int:
    """Return how many folds, at most `requested`, can all have a patient of each outcome."""
    least = int(np.bincount(outcome)[np.unique(outcome)].min())
    if least < requested and not quiet:
        console.say(
            f"{least} folds in place of {requested}: the rarest outcome has {least} patients"
        )
    return min(least, requested)


def names_by_fold(patients: Sequence[str], fold: NDArray[np.int64]) -> list[list[str]]:
    """Return the names of the patients of each fold."""
    return [
        [patients[i] for i in np.flatnonzero(fold == k).tolist()]
        for k in range(int(fold.max()) + 1)
    ]


def read(patients: Sequence[str], given: Mapping[str, object], where: str) -> NDArray[np.int64]:
    """Return the fold of each patient from the contents of a file; each must have one."""
    fold = np.full(len(patients), -1, np.int64)
    place = {name: i for i, name in enumerate(patients)}
    tests = given.get("folds")
    if not isinstance(tests, list) or len(tests) < 2:
        raise UserError(
            f"{where}: names no two folds", hint="vcell pipeline bulk writes such files"
        )
    for k, one in enumerate(tests):
        names = one.get("test") if isinstance(one, dict) else None
        for name in names if isinstance(names, list) else []:
            if name in place and fold[place[name]] >= 0:
                raise UserError(f"{where}: patient {name!r} is in two folds")
            if name in place:
                fold[place[name]] = k
        if not (fold == k).any():
            raise UserError(f"{where}: no patient of the cells is in fold {k}")
    lost = np.flatnonzero(fold < 0)
    if len(lost):
        raise UserError(f"{where}: patient {patients[lost[0]]!r} is in no fold")
    return fold
