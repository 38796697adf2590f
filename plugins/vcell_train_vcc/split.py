"""Hold out perturbations, never only cells: what is predicted was seen in no cell at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2
_FEWEST = 3  # perturbations to learn from


def split(
    perturbations: Sequence[str],
    *,
    test: Sequence[str] | None,
    test_share: float,
    validation_share: float,
    seed: int,
) -> NDArray[np.int8]:
    """Give each perturbation a part: TRAIN, VALIDATION or TEST, `test` by name where given."""
    n = len(perturbations)
    part = np.full(n, TRAIN, np.int8)
    if test is None:
        order = np.random.default_rng([seed, 0x5917]).permutation(n)
        part[order[: round(test_share * n)]] = TEST
    else:
        number = {name: i for i, name in enumerate(perturbations)}
        for name in test:
            if name not in number:
                raise UserError(
                    f"{name!r} is to be held out but no cell has that perturbation"
                    f"{did_you_mean(name, perturbations)}"
                )
            part[number[name]] = TEST
    rest = np.flatnonzero(part == TRAIN)
    order = np.random.default_rng([seed, 0x7A11]).permutation(rest)
    part[order[: round(validation_share * len(rest))]] = VALIDATION
    if (part == TRAIN).sum() < _FEWEST:
        raise UserError(
            f"{int((part == TRAIN).sum())} of {n} perturbations are left to learn from",
            hint=f"at least {_FEWEST} are needed: hold fewer out or bring more perturbations",
        )
    return part
