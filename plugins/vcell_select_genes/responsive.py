"""Which genes respond to which perturbation: a t-test of every gene in the same pass.

Sums and sums of squares of log-normalised values per perturbation are all that the test needs. Of
Welch's standard error and that of the pooled variance the larger one counts: with few cells and a
rare gene, Welch's alone calls a gene that is absent by chance. Benjamini-Hochberg per perturbation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.groups import ONE
from vcell.reducers import GroupLogMoments

if TYPE_CHECKING:
    from vcell.hvg import Read
    from vcell.passes import CellTable, Reducer

MIN_CELLS = 10  # perturbations with fewer are not tested
_BYTES = 320 << 20  # of the sums held at a time


@dataclass(frozen=True)
class Effects:
    """Per tested perturbation and gene, whether the gene responds.

    Parameters
    ----------
    names, n_cells
        The tested perturbations.
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
        """How many perturbations each gene responds to."""
        return np.asarray(self.responds.sum(axis=0))

    def order(self) -> NDArray[np.int64]:
        """Return the genes that respond to anything, the most often responding first."""
        count = self.n_responses
        order = np.lexsort((-self.strongest, -count))
        return order[: np.count_nonzero(count)]


class ResponseTest:
    """Tests every perturbation against the controls, as many at a time as memory allows.

    Parameters
    ----------
    codes, names
        Each cell's perturbation, -1 for none.
    control
        The number of the controls.
    own
        Each perturbation's target genes, which do not count as responses.
    """

    def __init__(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        control: int,
        n_genes: int,
        *,
        target_sum: float | None,
        own: Sequence[NDArray[np.int64]],
        fdr: float,
    ) -> None:
        self.names, self.control, self.own, self.fdr = names, control, own, fdr
        self.n_genes, self.target_sum, self.codes = n_genes, target_sum, codes
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        counts[control] = 0
        candidates = np.flatnonzero(counts >= MIN_CELLS)
        at_once = max(1, _BYTES // (16 * n_genes) - 1)
        self.rounds = [candidates[i : i + at_once] for i in range(0, len(candidates), at_once)] or [
            candidates
        ]
        self.first = self._sums(self.rounds[0])

    def _sums(self, groups: NDArray[np.int64]) -> GroupLogMoments:
        """Return a reducer for some perturbations, the controls first."""
        place = np.full(len(self.names) + 1, -1, np.int32)  # the last entry is for code -1
        place[self.control] = 0
        place[groups] = np.arange(1, len(groups) + 1)
        return GroupLogMoments(
            self.n_genes, place[self.codes], len(groups) + 1, target_sum=self.target_sum
        )

    def reducers(self) -> list[Reducer]:
        """Return what the first pass must gather."""
        return [self.first]

    def finish(self, read: Read, table: CellTable) -> Effects:
        """Test, reading again for the perturbations that did not fit."""
        used = self.codes[table.kept]
        counts = np.bincount(used[used >= 0], minlength=len(self.names))
        kept: list[int] = []
        responds = []
        strongest = np.zeros(self.n_genes)
        for number, groups in enumerate(self.rounds):
            sums = self.first if number == 0 else self._sums(groups)
            if number:
                read([sums])
            control = _mean_var(sums.total[0], int(counts[self.control]))
            for row, group in enumerate(groups, 1):
                n = int(counts[group])
                if n < MIN_CELLS or counts[self.control] < MIN_CELLS:
                    continue
                t, p = t_test(
                    *_mean_var(sums.total[row], n), n, *control, int(counts[self.control])
                )
                t[self.own[group]] = 0.0
                p[self.own[group]] = 1.0
                np.maximum(strongest, np.abs(t), out=strongest)
                responds.append(rejected(p, self.fdr))
                kept.append(int(group))
        missing = set(np.flatnonzero(counts)) - set(kept) - {self.control}
        return Effects(
            tuple(self.names[g] for g in kept),
            counts[kept],
            np.array(responds, bool).reshape(len(kept), self.n_genes),
            strongest,
            tuple(self.names[int(g)] for g in sorted(missing)),
        )


def _mean_var(sums: NDArray[np.int64], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and unbiased variance of one group from its sums ``[G, 2]``."""
    total, squares = sums[:, 0] / ONE, sums[:, 1] / ONE
    mean = total / max(n, 1)
    return mean, np.maximum(squares - total * mean, 0.0) / max(n - 1, 1)


def t_test(
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    n: int,
    control_mean: NDArray[np.float64],
    control_var: NDArray[np.float64],
    n_controls: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return t and two-sided p of each gene; genes that vary nowhere get 0 and 1."""
    from scipy.special import stdtr

    a, b = var / n, control_var / n_controls
    freedom = np.full(len(mean), float(n + n_controls - 2))
    pooled = ((n - 1) * var + (n_controls - 1) * control_var) / freedom
    pooled *= 1 / n + 1 / n_controls
    welch = a + b
    wider = welch > pooled
    with np.errstate(divide="ignore", invalid="ignore"):
        welch_freedom = welch**2 / (a**2 / (n - 1) + b**2 / (n_controls - 1))
        freedom[wider] = welch_freedom[wider]
        t = (mean - control_mean) / np.sqrt(np.maximum(pooled, welch))
    # sums are kept to 2**-30: a spread below that is none
    t = np.where(np.maximum(pooled, welch) > 1e-16, t, 0.0)
    p = 2 * stdtr(freedom, -np.abs(t))
    return t, np.where(t == 0, 1.0, p)


def rejected(p: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Return which hypotheses Benjamini and Hochberg reject; genes with p = 1 were not tested."""
    tested = np.flatnonzero(p < 1)
    order = tested[np.argsort(p[tested], kind="stable")]
    passed = np.flatnonzero(p[order] <= fdr * np.arange(1, len(order) + 1) / max(len(order), 1))
    result = np.zeros(len(p), bool)
    if len(passed):
        result[order[: passed[-1] + 1]] = True
    return result
