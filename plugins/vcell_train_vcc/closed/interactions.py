"""Sets of targets that were all measured alone: the sum of their effects, and interactions.

The sum of the single effects is the prior mean. The interaction, which is the difference of a
training set from that sum, is a Gaussian process over sets with the kernel

    k(S, T) = |S and T| / sqrt(|S| |T|)

so a set that shares no target with any training set is predicted by the sum alone. The shrinkage,
the noise relative to k, is 1, so that half of an observed interaction counts. Another value, no
interaction, or the process `gp` over all perturbations is used if its leave-one-out predictions of
the training sets are better by more than two standard errors, and there are at least ten sets.
D training sets, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.models import members
from vcell.models.scoring import each
from vcell.screen.targets import single_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SHRINKAGE = 1.0
_OTHERS = (0.25, 0.5, 2.0, 4.0, 8.0, np.inf)  # inf: the sum alone
_FEWEST = 10  # training sets needed to choose
_ERRORS = 2.0
_GENES = 1000  # most variable genes, on which the choice is made


class Interactions:
    """Interactions fitted to named training perturbations with effects (P, N).

    `left_out` has the leave-one-out predictions of `gp` for them.

    Attributes
    ----------
    rows
        (D,) training perturbations of several targets, all of them measured alone.
    shrinkage
        The chosen value; None if `gp` predicts these sets better.
    """

    def __init__(self, names: Sequence[str], delta: Array, left_out: Array) -> None:
        sets = [members(name) for name in names]
        alone = single_rows(sets)
        self.single = {gene: delta[rows].mean(axis=0) for gene, rows in alone.items()}
        self.rows = np.array([i for i, one in enumerate(sets) if self._all_alone(one)], np.int64)
        self.sets = [frozenset(sets[row]) for row in self.rows]
        self.sums = self._sum([sets[row] for row in self.rows], delta.shape[1])
        self.beyond = delta[self.rows] - self.sums
        self.kernel = self._kernel(self.sets)
        self.shrinkage = self._chosen(delta[self.rows], left_out[self.rows])

    def covers(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return which perturbations are predicted here."""
        chosen = self.shrinkage is not None
        return np.array([chosen and self._all_alone(members(name)) for name in names], np.bool_)

    def predict(self, names: Sequence[str]) -> Array:
        """Return effects (Q, N) of sets that are covered."""
        sets = [members(name) for name in names]
        total = self._sum(sets, self.beyond.shape[1])
        if self.shrinkage is None or not np.isfinite(self.shrinkage):
            return total
        noisy = self.kernel + self.shrinkage * np.eye(len(self.kernel))
        across = self._kernel([frozenset(one) for one in sets])
        return np.asarray(total + across @ np.linalg.solve(noisy, self.beyond))

    def left_out(self, shrinkage: float) -> Array:
        """Return leave-one-out predictions (D, N) of the training sets."""
        if not np.isfinite(shrinkage):
            return self.sums
        inverse = np.linalg.inv(self.kernel + shrinkage * np.eye(len(self.kernel)))
        return np.asarray(
            self.sums + self.beyond - (inverse @ self.beyond) / np.diag(inverse)[:, None]
        )

    def _chosen(self, real: Array, gp: Array) -> float | None:
        if len(real) < _FEWEST:
            return SHRINKAGE
        genes = np.argsort(-real.var(axis=0), kind="stable")[:_GENES]
        real, unit = real[:, genes], max(float(real[:, genes].var()), 1e-12)

        def loss(guess: Array) -> Array:
            found = each(guess, real, np.full(len(real), -1, np.int64))
            error = np.square(guess - real).mean(axis=1) / unit
            return np.asarray(error - found["delta_correlation"] - found["pds"])

        usual, least = loss(self.left_out(SHRINKAGE)[:, genes]), 0.0
        chosen: float | None = SHRINKAGE
        others: list[tuple[float | None, Array]] = [(o, self.left_out(o)) for o in _OTHERS]
        for other, guess in [*others, (None, gp)]:
            gain = usual - loss(guess[:, genes])
            sure = gain.mean() - _ERRORS * gain.std(ddof=1) / np.sqrt(len(gain))
            if sure > least:
                chosen, least = other, float(sure)
        return chosen

    def _all_alone(self, one: Sequence[str]) -> bool:
        return len(one) > 1 and all(gene in self.single for gene in one)

    def _sum(self, sets: Sequence[Sequence[str]], n_genes: int) -> Array:
        found = [np.sum([self.single[gene] for gene in one], axis=0) for one in sets]
        return np.array(found, np.float64).reshape(len(sets), n_genes)

    def _kernel(self, sets: Sequence[frozenset[str]]) -> Array:
        """Return the kernel (Q, D) between some sets and the training sets."""
        return np.array(
            [[len(s & t) / np.sqrt(len(s) * len(t)) for t in self.sets] for s in sets], np.float64
        ).reshape(len(sets), len(self.sets))
