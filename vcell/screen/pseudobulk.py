"""Pseudobulk: moments of groups of cells, and the effects of perturbations, in one pass.

Memory is groups x genes; cells are streamed. P rows, each a perturbation in a context; N genes;
C contexts; B groups of controls that are matched with (batch and context).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.data.log_cells import LogCells
    from vcell.screen.design import Design, ScreenRows


@dataclass(frozen=True)
class GroupSums:
    """Sums over the cells of each group, from which means and variances follow.

    Attributes
    ----------
    total
        (P, N) sums of the values.
    of_groups, of_genes
        (P,) and (N,) sums of their squares.
    count
        (P,) cells.
    """

    total: NDArray[np.float64]
    of_groups: NDArray[np.float64]
    of_genes: NDArray[np.float64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, cells: LogCells, codes: NDArray[np.int64], n_groups: int) -> GroupSums:
        """Read the cells once; `codes` gives the group of each, -1 for none."""
        wanted = np.flatnonzero(codes >= 0)
        total = np.zeros((n_groups, cells.n_genes))
        of_groups, of_genes = np.zeros(n_groups), np.zeros(cells.n_genes)
        for numbers, block in cells.blocks(None if len(wanted) == len(codes) else wanted):
            group = codes[numbers]
            summed = (indicator(group, n_groups) @ block).tocoo()
            total[summed.row, summed.col] += summed.data
            square = block.multiply(block)
            of_groups += np.bincount(group, np.asarray(square.sum(axis=1)).ravel(), n_groups)
            of_genes += np.asarray(square.sum(axis=0)).ravel()
        return cls(total, of_groups, of_genes, np.bincount(codes[wanted], minlength=n_groups))

    @property
    def mean(self) -> NDArray[np.float64]:
        """(P, N) means."""
        found: NDArray[np.float64] = self.total / np.maximum(self.count, 1)[:, None]
        return found

    @property
    def variance(self) -> NDArray[np.float64]:
        """(P,) variances, averaged over genes; 0 for a group of one cell."""
        within = self.of_groups - self.count * np.square(self.mean).sum(axis=1)
        found: NDArray[np.float64] = within / (np.maximum(self.count - 1, 1) * self.total.shape[1])
        return found

    @property
    def within(self) -> NDArray[np.float64]:
        """(N,) standard deviation of each gene about the mean of its group."""
        between = (self.count[:, None] * np.square(self.mean)).sum(axis=0)
        found: NDArray[np.float64] = np.sqrt(
            np.maximum(self.of_genes - between, 0) / max(int(self.count.sum()), 1)
        )
        return found


def indicator(codes: NDArray[np.int64], n_groups: int) -> sp.csr_array:
    """Return (groups, cells): 1 where a cell belongs to a group."""
    ones = np.ones(len(codes))
    return sp.csr_array((ones, (codes, np.arange(len(codes)))), (n_groups, len(codes)))


@dataclass(frozen=True)
class MeasuredEffects:
    """(P, N) effects, (P,) their sampling variance, (C, N) control means, (P,) cells."""

    delta: NDArray[np.float64]
    noise: NDArray[np.float64]
    control: NDArray[np.float64]
    cells: NDArray[np.int64]


def effects(cells: LogCells, rows: ScreenRows, design: Design) -> MeasuredEffects:
    """Measure the rows against matched controls, in one pass over the cells."""
    n, n_matched = len(rows), design.n_matched
    group = np.where(design.control, n + design.matched, rows.of_cell)
    found = GroupSums.of(cells, group, n + n_matched)
    mean, variance, count = found.mean, found.variance, found.count
    share = np.zeros((n, n_matched))
    own = rows.of_cell >= 0
    np.add.at(share, (rows.of_cell[own], design.matched[own]), 1)
    context = np.zeros(n_matched, np.int64)
    context[design.matched] = design.context
    controls, size = mean[n:], count[n:]
    per_context = _of_contexts(controls, size, context, design)
    bare = np.flatnonzero((size == 0) & (share.sum(axis=0) > 0))
    if len(bare) == np.count_nonzero(share.sum(axis=0)):
        raise UserError(
            "no batch has both controls and perturbed cells: batch and effect cannot be told apart",
            hint="if the column is no batch, name another one with --batch-column",
        )
    if len(bare):
        console.warn(
            f"{len(bare)} of {n_matched} batches have no control cells: their cells are compared "
            "with the controls of all batches"
        )
        controls[bare] = per_context[context[bare]]
    share /= share.sum(axis=1, keepdims=True)
    of_control = np.divide(variance[n:], size, out=np.zeros(n_matched), where=size > 0)
    noise = variance[:n] / np.maximum(count[:n], 1) + share**2 @ of_control
    return MeasuredEffects(mean[:n] - share @ controls, noise, per_context, count[:n])


def _of_contexts(
    controls: NDArray[np.float64],
    size: NDArray[np.int64],
    context: NDArray[np.int64],
    design: Design,
) -> NDArray[np.float64]:
    """Return (C, N) control means; a context without controls gets those of all."""
    overall = size @ controls / size.sum()
    found = np.tile(overall, (len(design.contexts), 1))
    for code, name in enumerate(design.contexts):
        weight = np.where(context == code, size, 0)
        if weight.sum():
            found[code] = weight @ controls / weight.sum()
        elif (design.context == code).any():
            console.warn(f"{name} has no control cells: those of all contexts stand in for them")
    return found
