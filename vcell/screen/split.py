"""Hold out whole perturbations, never single cells, so that no cell of them is seen in training.

A perturbation has the same part in all contexts; a whole context can be held out as well.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Part(IntEnum):
    """What a perturbation is for."""

    TRAIN = 0  # to learn from
    VALIDATION = 1  # to choose the model by
    TEST = 2  # held out


TRAIN, VALIDATION, TEST = Part
_FEWEST = 3  # perturbations to learn from


def split(
    perturbations: Sequence[str],
    *,
    test: Sequence[str] | None = None,
    validation: Sequence[str] | None = None,
    fold: tuple[int, int] | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.15,
    seed: int = 0,
) -> NDArray[np.int8]:
    """Assign each perturbation a part: TRAIN, VALIDATION or TEST.

    Parameters
    ----------
    test, validation
        Names; a random share if not given.
    fold
        (k, n): hold out the k-th of n equal parts of a permutation that `seed` draws.
    """
    n = len(perturbations)
    part = np.full(n, TRAIN, np.int8)
    if test is not None:
        part[_numbers(perturbations, test, "held out")] = TEST
    order = np.random.default_rng([seed, 0x5917]).permutation(n)
    if fold is not None:
        if fold[1] > n:
            raise UserError(
                f"{console.count(n, 'perturbation')} cannot be split into {fold[1]} folds"
            )
        part[order[fold[0] - 1 :: fold[1]]] = TEST
    elif test is None:
        part[order[: round(test_share * n)]] = TEST
    if validation is not None:
        number = _numbers(perturbations, validation, "the model is to be chosen by")
        part[number] = np.where(part[number] == TEST, TEST, VALIDATION)
    else:
        rest = np.flatnonzero(part == TRAIN)
        order = np.random.default_rng([seed, 0x7A11]).permutation(rest)
        part[order[: round(validation_share * len(rest))]] = VALIDATION
    if (part == TRAIN).sum() < _FEWEST:
        raise UserError(
            f"left to learn from: {int((part == TRAIN).sum())} of "
            f"{console.count(n, 'perturbation')}",
            hint=f"at least {_FEWEST} are needed: hold fewer out or bring more perturbations",
        )
    return part


def _numbers(perturbations: Sequence[str], names: Sequence[str], purpose: str) -> NDArray[np.int64]:
    number = {name: i for i, name in enumerate(perturbations)}
    for name in names:
        if name not in number:
            raise UserError(
                f"{name!r} is to be {purpose} but no cell has that perturbation"
                if purpose == "held out"
                else f"{purpose} {name!r} but no cell has that perturbation",
                hint=f"it must be a label of the cells{did_you_mean(name, perturbations)}",
            )
    return np.array([number[name] for name in names], np.int64)
