"""Find what the challenge's server would refuse: first in the labels, then in the values.

`check_labels` reads no value of the matrix, so most mistakes are found in seconds. `ValueCheck`
checks every value in a stream, and stops at the first block with an error.
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


_GUIDE = re.compile(r"-\d$")  # a guide's name (ADNP-1) instead of the gene symbol (ADNP)
_FRACTION = {True: 1e-6, False: 1e-3}  # tolerance for integers: of counts, and to detect log1p


@dataclass(frozen=True)
class PredictionLabels:
    """What is known of a prediction without reading its values."""

    genes: NDArray[np.str_]
    perturbation: NDArray[np.str_]  # of each cell
    context: NDArray[np.str_] | None
    nnz: int | None  # None if unknown before reading


@dataclass(frozen=True)
class Requirements:
    """The requirements of the challenge."""

    format: Format
    genes: list[str] | None
    panel: Panel | None
    contexts: tuple[str, ...]
    cells: int
    max_cells: int
    control: str = CONTROL


def check_labels(labels: PredictionLabels, required: Requirements) -> list[str]:
    """Return all errors that can be found without reading values, one line each."""
    if not len(labels.perturbation):
        return ["it has no cells, so there is nothing to submit"]
    problems = (
        _genes(labels.genes, required) + _size(labels, required) + _controls(labels, required)
    )
    if not required.format.contexts:
        return problems + _perturbations(labels.perturbation, None, required)
    if labels.context is None:
        return [*problems, "no column names the cells' context (name it with --context-column)"]
    present = set(labels.context.tolist())
    unknown = sorted(present - set(required.contexts))
    missing = [name for name in required.contexts if name not in present]
    if unknown:
        problems.append(
            f"unknown contexts {sample(unknown)}; expected are {', '.join(required.contexts)}"
        )
    if missing:
        problems.append(f"no cells for context {', '.join(missing)}")
    for name in required.contexts:
        if name in present:
            problems += _perturbations(labels.perturbation[labels.context == name], name, required)
    return problems


def _genes(genes: NDArray[np.str_], required: Requirements) -> list[str]:
    problems = []
    twice = sorted(name for name, n in Counter(genes.tolist()).items() if n > 1)
    if twice:
        problems.append(f"genes named more than once: {sample(twice)}")
    if required.genes is None:
        if len(genes) != required.format.n_genes:
            problems.append(
                f"{len(genes):,} genes; the challenge has {required.format.n_genes:,} "
                "(pass its list with --genes)"
            )
        return problems
    have, want = set(genes.tolist()), set(required.genes)
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


def _size(labels: PredictionLabels, required: Requirements) -> list[str]:
    problems, n = [], len(labels.perturbation)
    if n > required.max_cells:
        problems.append(f"{n:,} cells; at most {required.max_cells:,} are accepted")
    if labels.nnz is not None:
        problems += too_dense(labels.nnz, n * len(labels.genes), required.format)
    return problems


def too_dense(nnz: int, size: int, form: Format) -> list[str]:
    """Return an error if there are more non-zeros than fit the server's memory."""
    if form.max_nnz is None or nnz <= form.max_nnz:
        return []
    problem = (
        f"{nnz:,} non-zeros ({nnz / size:.0%} of the matrix); at most {form.max_nnz:,} are "
        f"accepted, {form.max_nnz / size:.0%} of this matrix"
    )
    return [problem]


def _controls(labels: PredictionLabels, required: Requirements) -> list[str]:
    count = int((labels.perturbation == required.control).sum())
    if required.format.controls and not count:
        return [f"no {required.control} cells: {required.format.name} needs predicted controls"]
    if not required.format.controls and count:
        name = f"{count:,} {required.control} cells"
        return [f"{name}: {required.format.name} takes none (measured ones are used); drop them"]
    return []


def _perturbations(
    names: NDArray[np.str_], context: str | None, required: Requirements
) -> list[str]:
    """Compare the perturbations of one context with the challenge's list."""
    where = f"context {context}: " if context else ""
    counts = Counter(names.tolist())
    counts.pop(required.control, None)
    blank = sum(counts.pop(name, 0) for name in ("", "nan", "None"))
    problems = [f"{where}{console.count(blank, 'cell')} without a perturbation"] if blank else []
    expected: dict[str, int | None] = dict.fromkeys(counts, required.cells)
    if required.panel is not None:
        expected = required.panel.of(context)
        problems += _against_panel(counts, expected, where)
    if not required.format.counts:
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
            f"{where}{console.count(len(extra), 'perturbation')} not requested: "
            f"{sample(extra)}{hint}"
        )
    return problems


class ValueCheck:
    """Checks every value block by block; raises at the first error."""

    def __init__(
        self, required: Requirements, labels: PredictionLabels, name: str, *, counts: bool
    ) -> None:
        self.required, self.name, self.counts = required, name, counts
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
                "values that are not whole numbers (raw counts are needed; "
                "log-normalised values are the usual mistake)",
                cell[rest],
            )
        self._fractional |= bool(rest.any())
        if not self.counts and (data >= self.required.format.max_log1p).any():
            self._refuse(
                f"values of {self.required.format.max_log1p:g} or more among log1p values",
                cell[data >= self.required.format.max_log1p],
            )
        self._totals(rows, indptr, data)
        self.nnz += int(np.count_nonzero(data))
        problems = too_dense(self.nnz, self._size, self.required.format)
        if problems:
            raise UserError(f"{self.name}: {problems[0]}")

    def _totals(
        self, rows: NDArray[np.int64], indptr: NDArray[np.int64], data: NDArray[Any]
    ) -> None:
        sums = np.concatenate(([0.0], np.cumsum(data, dtype=np.float64)))
        totals = sums[indptr[1:]] - sums[indptr[:-1]]
        most = self.required.format.max_cell_total
        if most is not None and (totals > most).any():
            self._refuse(f"cells with more than {most:,.0f} counts", rows[totals > most])
        self._alive[self._codes[rows[totals > 0]]] = True

    def finish(self) -> None:
        """Refuse perturbations without a single count, which only the whole matrix shows."""
        if not self._alive.all():
            empty = self._groups[~self._alive].tolist()
            raise UserError(
                f"{self.name}: {console.count(len(empty), 'perturbation')} with zero in every "
                f"cell and gene: {sample(empty)}",
                hint="the model probably made no prediction for them",
            )

    def _refuse(self, problem: str, cells: Sequence[int] | NDArray[np.int64]) -> None:
        where = sorted({int(cell) for cell in cells[:1000]})
        raise UserError(
            f"{self.name}: {problem}, first in cell {sample([str(w) for w in where], 5)}"
        )
