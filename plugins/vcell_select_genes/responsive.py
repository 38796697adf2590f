"""Find the genes that respond to each perturbation, by a t-test of every gene in one pass.

The test needs only the sums and the sums of squares of log-normalised values per perturbation. It
uses the larger of Welch's standard error and the pooled one: with few cells and a rare gene,
Welch's alone reports genes that are absent by chance. Benjamini-Hochberg per perturbation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.groups import ONE
from vcell.passes.reducers import GroupLogMoments
from vcell.student import stdtr

if TYPE_CHECKING:
    from vcell.hvg import Read
    from vcell.passes import CellTable, Reducer

MIN_CELLS = 10  # cells that a perturbation needs to be tested
_BYTES = 320 << 20  # of the sums in memory at a time


@dataclass(frozen=True)
class Responses:
    """Whether each gene responds to each tested perturbation.

    Parameters
    ----------
    names, n_cells
        The tested perturbations, one for each cell type.
    responds
        ``[P, G]``. A perturbation's own target does not count as a response.
    strongest
        Largest absolute t over the perturbations ``[G]``.
    untested
        Perturbations with too few cells.
    """

    names: tuple[str, ...]
    n_cells: NDArray[np.int64]
    responds: NDArray[np.bool_]
    strongest: NDArray[np.float64]
    untested: tuple[str, ...]

    @property
    def n_responses(self) -> NDArray[np.int64]:
        """The number of perturbations that each gene responds to."""
        return np.asarray(self.responds.sum(axis=0))

    def order(self) -> NDArray[np.int64]:
        """Return the genes that respond to any perturbation, those with most responses first."""
        count = self.n_responses
        order = np.lexsort((-self.strongest, -count))
        return order[: np.count_nonzero(count)]


class ResponseTest:
    """Tests every perturbation against the controls, as many at a time as memory allows.

    Parameters
    ----------
    codes, names
        Each cell's group, -1 for none: a perturbation (in one cell type), or controls.
    controls
        The controls of each group; -1 for the controls themselves.
    own
        Each perturbation's target genes, which do not count as responses.
    """

    def __init__(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        controls: NDArray[np.int64],
        n_genes: int,
        *,
        target_sum: float | None,
        own: Sequence[NDArray[np.int64]],
        fdr: float,
    ) -> None:
        self.names, self.controls, self.own, self.fdr = names, controls, own, fdr
        self.n_genes, self.target_sum, self.codes = n_genes, target_sum, codes
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        candidates = np.flatnonzero((counts >= MIN_CELLS) & (controls >= 0))
        self.references = np.unique(controls[candidates])
        at_once = max(1, _BYTES // (16 * n_genes) - len(self.references))
        self.rounds = [candidates[i : i + at_once] for i in range(0, len(candidates), at_once)] or [
            candidates
        ]
        self.first = self._sums(self.rounds[0])

    def _sums(self, groups: NDArray[np.int64]) -> GroupLogMoments:
        """Return a reducer for some perturbations, the controls first."""
        held = np.concatenate([self.references, groups])
        place = np.full(len(self.names) + 1, -1, np.int32)  # the last entry is for code -1
        place[held] = np.arange(len(held))
        return GroupLogMoments(
            self.n_genes, place[self.codes], len(held), target_sum=self.target_sum
        )

    def reducers(self) -> list[Reducer]:
        """Return the reducers of the first pass."""
        return [self.first]

    def finish(self, read: Read, table: CellTable) -> Responses:
        """Test, reading again for the perturbations that did not fit in memory."""
        used = self.codes[table.kept]
        counts = np.bincount(used[used >= 0], minlength=len(self.names))
        tested: list[int] = []
        responds = []
        strongest = np.zeros(self.n_genes)
        for number, groups in enumerate(self.rounds):
            sums = self.first if number == 0 else self._sums(groups)
            if number:
                read([sums])
            controls = {
                int(group): _moments(sums.total[row], int(counts[group]))
                for row, group in enumerate(self.references)
            }
            for row, group in enumerate(groups, len(self.references)):
                own = _moments(sums.total[row], int(counts[group]))
                control = controls[int(self.controls[group])]
                if min(own.n, control.n) < MIN_CELLS:
                    continue
                t, p = t_test(own, control)
                t[self.own[group]] = 0.0
                p[self.own[group]] = 1.0
                np.maximum(strongest, np.abs(t), out=strongest)
                responds.append(rejected(p, self.fdr))
                tested.append(int(group))
        missing = set(np.flatnonzero((counts > 0) & (self.controls >= 0))) - set(tested)
        return Responses(
            tuple(self.names[g] for g in tested),
            counts[tested],
            np.array(responds, bool).reshape(len(tested), self.n_genes),
            strongest,
            tuple(self.names[int(g)] for g in sorted(missing)),
        )


@dataclass(frozen=True)
class Moments:
    """Mean and unbiased variance of every gene in `n` cells."""

    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    n: int


def _moments(sums: NDArray[np.int64], n: int) -> Moments:
    """Return the moments of one group from its sums ``[G, 2]``."""
    total, squares = sums[:, 0] / ONE, sums[:, 1] / ONE
    mean = total / max(n, 1)
    return Moments(mean, np.maximum(squares - total * mean, 0.0) / max(n - 1, 1), n)


def t_test(a: Moments, b: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return t and two-sided p of each gene; 0 and 1 for genes without variance."""
    freedom = np.full(len(a.mean), float(a.n + b.n - 2))
    pooled = ((a.n - 1) * a.var + (b.n - 1) * b.var) / freedom * (1 / a.n + 1 / b.n)
    own, other = a.var / a.n, b.var / b.n
    welch = own + other
    wider = welch > pooled
    freedom[wider] = welch[wider] ** 2 / (
        own[wider] ** 2 / (a.n - 1) + other[wider] ** 2 / (b.n - 1)
    )
    error = np.maximum(pooled, welch)
    varies = error > 1e-16  # sums are exact to 2**-30; smaller variances are rounding errors
    t = np.where(varies, a.mean - b.mean, 0.0) / np.sqrt(np.where(varies, error, 1.0))
    return t, np.where(varies, 2 * stdtr(freedom, -np.abs(t)), 1.0)


def rejected(p: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Return which hypotheses Benjamini-Hochberg rejects; p = 1 counts as not tested."""
    tested = np.flatnonzero(p < 1)
    order = tested[np.argsort(p[tested], kind="stable")]
    passed = np.flatnonzero(p[order] <= fdr * np.arange(1, len(order) + 1) / max(len(order), 1))
    result = np.zeros(len(p), bool)
    if len(passed):
        result[order[: passed[-1] + 1]] = True
    return result
