"""Find what the challenge's server would refuse: first in the labels, then in the values.

`check_labels` needs no value of the matrix, so most mistakes cost seconds. `ValueCheck` looks at
every value as it streams past, and stops at the first block that would be refused.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell_pack.formats import CONTROL, Format, Panel, sample

if TYPE_CHECKING:
    from collections.abc import Sequence


_GUIDE = re.compile(r"-\d$")  # a construct (ADNP-1) where the gene's symbol (ADNP) is meant
_FRACTION = {True: 1e-6, False: 1e-3}  # counts must be whole; log1p is told from counts by 1e-3


@dataclass(frozen=True)
class PredictionLabels:
    """What the checks need to know of a prediction without reading its values."""

    genes: NDArray[np.str_]
    perturbation: NDArray[np.str_]  # one per cell
    context: NDArray[np.str_] | None
    nnz: int | None  # None where only reading tells


@dataclass(frozen=True)
class Wanted:
    """What the challenge asks for."""

    format: Format
    genes: list[str] | None
    panel: Panel | None
    contexts: tuple[str, ...]
    cells: int
    max_cells: int
    control: str = CONTROL


def check_labels(labels: PredictionLabels, wanted: Wanted) -> list[str]:
    """Return every problem that needs no value of the matrix, one line each."""
    if not len(labels.perturbation):
        return ["it has no cells, so there is nothing to submit"]
    problems = _genes(labels.genes, wanted) + _size(labels, wanted) + _controls(labels, wanted)
    if not wanted.format.contexts:
        return problems + _perturbations(labels.perturbation, None, wanted)
    if labels.context is None:
        return [*problems, "no column names the cells' context (name it with --context-column)"]
    present = set(labels.context.tolist())
    unknown = sorted(present - set(wanted.contexts))
    missing = [name for name in wanted.contexts if name not in present]
    if unknown:
        problems.append(
            f"unknown contexts {sample(unknown)}; asked for are {', '.join(wanted.contexts)}"
        )
    if missing:
        problems.append(f"no cells for context {', '.join(missing)}")
    for name in wanted.contexts:
        if name in present:
            problems += _perturbations(labels.perturbation[labels.context == name], name, wanted)
    return problems


def _genes(genes: NDArray[np.str_], wanted: Wanted) -> list[str]:
    problems = []
    twice = sorted(name for name, n in Counter(genes.tolist()).items() if n > 1)
    if twice:
        problems.append(f"genes named more than once: {sample(twice)}")
    if wanted.genes is None:
        if len(genes) != wanted.format.n_genes:
            problems.append(
                f"{len(genes):,} genes; the challenge has {wanted.format.n_genes:,} "
                "(pass its list with --genes)"
            )
        return problems
    have, want = set(genes.tolist()), set(wanted.genes)
    if want - have:
        names = sorted(want - have)
        problems.append(
            f"{console.count(len(names), 'gene of the list is', 'genes of the list are')} missing: "
            f"{sample(names)}"
        )
    if have - want:
        names = sorted(have - want)
        problems.append(
            f"{console.count(len(names), 'gene is', 'genes are')} not on the list: {sample(names)}"
        )
    return problems


def _size(labels: PredictionLabels, wanted: Wanted) -> list[str]:
    problems, n = [], len(labels.perturbation)
    if n > wanted.max_cells:
        problems.append(f"{n:,} cells; at most {wanted.max_cells:,} are accepted")
    if labels.nnz is not None:
        problems += too_dense(labels.nnz, n * len(labels.genes), wanted.format)
    return problems


def too_dense(nnz: int, size: int, form: Format) -> list[str]:
    """Say whether there are more non-zeros than the server's memory holds."""
    if form.max_nnz is None or nnz <= form.max_nnz:
        return []
    words = (
        f"{nnz:,} non-zeros ({nnz / size:.0%} of the matrix); at most {form.max_nnz:,} are "
        f"accepted, {form.max_nnz / size:.0%} of this matrix"
    )
    return [words]


def _controls(labels: PredictionLabels, wanted: Wanted) -> list[str]:
    count = int((labels.perturbation == wanted.control).sum())
    if wanted.format.controls and not count:
        return [f"no {wanted.control} cells: {wanted.format.name} needs predicted controls"]
    if not wanted.format.controls and count:
        name = f"{count:,} {wanted.control} cells"
        return [f"{name}: {wanted.format.name} takes none (measured ones are used); drop them"]
    return []


def _perturbations(names: NDArray[np.str_], context: str | None, wanted: Wanted) -> list[str]:
    """Compare the labels of one context with the challenge's list."""
    where = f"context {context}: " if context else ""
    counts = Counter(names.tolist())
    counts.pop(wanted.control, None)
    blank = sum(counts.pop(name, 0) for name in ("", "nan", "None"))
    problems = [f"{where}{console.count(blank, 'cell')} without a perturbation"] if blank else []
    expected: dict[str, int | None] = dict.fromkeys(counts, wanted.cells)
    if wanted.panel is not None:
        expected = wanted.panel.of(context)
        problems += _against_panel(counts, expected, where)
    if not wanted.format.counts:
        return problems
    wrong = [
        f"{name} has {counts[name]:,}, not {number:,}"
        for name, number in sorted(expected.items())
        if number is not None and name in counts and counts[name] != number
    ]
    if wrong:
        problems.append(f"{where}{len(wrong):,} wrong numbers of cells: {sample(wrong, 5)}")
    return problems


def _against_panel(counts: Counter[str], expected: dict[str, int | None], where: str) -> list[str]:
    missing, extra = sorted(expected.keys() - counts.keys()), sorted(counts.keys() - expected)
    problems = []
    if missing:
        problems.append(
            f"{where}{console.count(len(missing), 'perturbation')} not predicted: {sample(missing)}"
        )
    if extra:
        hint = (
            " (constructs? submit the gene's symbol, without -1)"
            if any(_GUIDE.search(name) for name in extra)
            else ""
        )
        problems.append(
            f"{where}{console.count(len(extra), 'perturbation')} not asked for: "
            f"{sample(extra)}{hint}"
        )
    return problems


class ValueCheck:
    """Looks at every value once, block by block; raises at the first that would be refused."""

    def __init__(
        self, wanted: Wanted, labels: PredictionLabels, name: str, *, counts: bool
    ) -> None:
        self.wanted, self.name, self.counts = wanted, name, counts
        groups = labels.perturbation
        if labels.context is not None:
            groups = np.char.add(np.char.add(labels.context, " "), groups)
        self._groups, self._codes = np.unique(groups, return_inverse=True)
        self._alive = np.zeros(len(self._groups), bool)
        self._size = len(labels.perturbation) * len(labels.genes)
        self._fractional = False
        self.nnz = 0

    def block(self, rows: NDArray[np.int64], indptr: NDArray[np.int64], data: NDArray[Any]) -> None:
        """Check the values of some cells, given as a CSR block."""
        cell = np.repeat(rows, np.diff(indptr))
        bad = ~np.isfinite(data)
        if bad.any():
            self._refuse("values that are not finite (NaN or infinite)", cell[bad])
        if (data < 0).any():
            self._refuse("negative values", cell[data < 0])
        rest = np.abs(data - np.rint(data)) > _FRACTION[self.counts]
        if self.counts and rest.any():
            self._refuse(
                "values that are not whole numbers (raw counts are asked for; "
                "log-normalised values are the usual mistake)",
                cell[rest],
            )
        self._fractional |= bool(rest.any())
        if not self.counts and (data >= self.wanted.format.max_log1p).any():
            self._refuse(
                f"values of {self.wanted.format.max_log1p:g} or more among log1p values",
                cell[data >= self.wanted.format.max_log1p],
            )
        self._totals(rows, indptr, data)
        self.nnz += int(np.count_nonzero(data))
        problems = too_dense(self.nnz, self._size, self.wanted.format)
        if problems:
            raise UserError(f"{self.name}: {problems[0]}")

    def _totals(
        self, rows: NDArray[np.int64], indptr: NDArray[np.int64], data: NDArray[Any]
    ) -> None:
        sums = np.concatenate(([0.0], np.cumsum(data, dtype=np.float64)))
        totals = sums[indptr[1:]] - sums[indptr[:-1]]
        most = self.wanted.format.max_cell_total
        if most is not None and (totals > most).any():
            self._refuse(f"cells with more than {most:,.0f} counts", rows[totals > most])
        self._alive[self._codes[rows[totals > 0]]] = True

    def finish(self) -> None:
        """Refuse what only the whole matrix shows: perturbations without a single count."""
        if not self._alive.all():
            empty = self._groups[~self._alive].tolist()
            raise UserError(
                f"{self.name}: {console.count(len(empty), 'perturbation')} with zero in every "
                f"cell and gene: {sample(empty)}",
                hint="the model probably made no prediction for them",
            )

    def _refuse(self, what: str, cells: Sequence[int] | NDArray[np.int64]) -> None:
        where = sorted({int(cell) for cell in cells[:1000]})
        raise UserError(f"{self.name}: {what}, first in cell {sample([str(w) for w in where], 5)}")
