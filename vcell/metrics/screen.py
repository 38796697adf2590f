"""Tests of a screen, from cells to table: labels, log1p of counts, strata, filters of genes.

The work of `vcell de` and `vcell.metrics.de.compare`. For rank tests cells are read once, otherwise
in chunks, two or three times; what is detected is printed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import CellSource, detect
from vcell.data import labels as find_labels
from vcell.errors import UserError
from vcell.metrics import significance
from vcell.metrics.by_gene import GeneMajor
from vcell.metrics.gene_major import AT_ONCE, GeneMajorSources, SourcePart, transpose
from vcell.metrics.groups import Grouped, grouped, summarise
from vcell.metrics.scaled import (
    ValueSurvey,
    divisors,
    logged,
    median_target,
    merged,
    precision,
    shares,
    survey,
)
from vcell.screen.targets import alike, of_the_same_targets

if TYPE_CHECKING:
    from collections.abc import Iterator

EPSILON = 1e-9  # added to both means of the arithmetic fold change, as pdex and cell-eval2 do
_LARGEST_LOG = 15.0  # cell-eval's limit: no log1p value reaches it
Test = Literal["wilcoxon", "t-test"]
Values = Literal["log1p", "stored"]
Opponent = Literal["control", "rest"]


class Choices(find_labels.LabelOptions, Protocol):
    """How to test: the interface of `vcell de`'s settings and of `Chosen`."""

    @property
    def test(self) -> Test:
        """The test: rank-sum, or Welch's t."""
        ...

    @property
    def against(self) -> Opponent:
        """Compare with the controls, or with all other cells."""
        ...

    @property
    def values(self) -> Values:
        """log1p of scaled counts, or values as stored."""
        ...

    @property
    def fold_change(self) -> significance.FoldChange:
        """Definition of the fold change."""
        ...

    @property
    def fdr(self) -> significance.Scope:
        """Tests over which the false discovery rate is controlled."""
        ...

    @property
    def min_cpm(self) -> float:
        """Test only genes with more mean counts per million in the controls."""
        ...

    @property
    def stratify(self) -> str | None:
        """Test within each value of this column."""
        ...

    @property
    def threads(self) -> int | None:
        """Number of threads; None for one per core."""
        ...


@dataclass(frozen=True, kw_only=True)
class Chosen(find_labels.NoOptions):
    """The same settings with defaults, for calls from Python."""

    test: Test = "wilcoxon"
    against: Opponent = "control"
    values: Values = "log1p"
    fold_change: significance.FoldChange = "geometric"
    fdr: significance.Scope = "perturbation"
    min_cpm: float = 0.0
    stratify: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ScreenCells:
    """The cells to test, and facts about their values."""

    source: CellSource
    seen: ValueSurvey
    counts: bool
    divisor: NDArray[np.floating] | None
    cells: GeneMajor | None  # transposed, for rank tests; `tables` closes it

    @classmethod
    def of(
        cls, source: CellSource, values: Values, *, ranked: bool = True, threads: int | None = None
    ) -> ScreenCells:
        """Check every value, and decide how to take logs; for rank tests, transpose the cells."""
        detect.refuse_nothing(source)
        detect.refuse_repeated(source)
        found = detect.scale(source)
        cells = GeneMajor(source.n_genes) if ranked else None
        try:
            seen = _seen(source, cells, threads)
            counts, divisor = _decided(source, found, seen, values)
        except BaseException:
            if cells is not None:
                cells.close()
            raise
        return cls(source, seen, counts, divisor, cells)

    @property
    def tested_as(self) -> str:
        """Description of the values that are tested."""
        return "log1p" if self.divisor is not None or not self.counts else "as stored"

    def blocks(self) -> Iterator[Any]:
        """Yield the values that are tested."""
        for block in self.source.chunks(dtype=precision(self.source.dtype)):
            divisor = self.divisor
            yield block if divisor is None else logged(block, divisor[block.rows])

    def linear(self) -> Iterator[Any]:
        """Yield the same values without the logarithm."""
        for block in self.blocks():
            yield _unlogged(block)

    def cpm(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each gene's mean counts per million over some cells."""
        total = np.zeros(self.source.n_genes)
        for block in self.source.chunks(rows=rows):
            if not self.counts:
                block = _unlogged(block)  # noqa: PLW2901
            sums = np.add.reduceat(np.append(block.data, 0.0), block.indptr[:-1])
            sums[np.diff(block.indptr) == 0] = 1.0
            each = shares(block, sums)
            total += np.bincount(each.indices, each.data, minlength=len(total))
        return total * 1e6 / max(len(rows), 1)


def _seen(source: CellSource, cells: GeneMajor | None, threads: int | None) -> ValueSurvey:
    """Survey every value, and transpose the cells into `cells` if given."""
    with console.progress(f"reading {source.name}", source.n_cells) as bar:

        def blocks() -> Iterator[Any]:
            for block in source.chunks(dtype=precision(source.dtype), max_nnz=AT_ONCE):
                yield block
                bar.advance(len(block.rows))

        if cells is None:
            return survey(blocks(), source.n_cells)
        group = np.zeros(source.n_cells, np.int32)  # strata and groups come later
        surveys = transpose(cells, blocks(), group, threads=threads, survey=True)
        return merged(surveys, source.n_cells)


def _decided(
    source: CellSource, found: detect.Scale, seen: ValueSurvey, values: Values
) -> tuple[bool, NDArray[np.floating] | None]:
    """Return whether the values are counts, and the divisor of each cell before log1p."""
    seen.require_finite(source.name)
    counts = found.kind == "counts" and not seen.fractions
    if counts and seen.low < 0:
        raise UserError(f"{source.name}: negative counts, down to {seen.low:.4g}")
    if values == "stored" or not counts:
        odd = seen.low < 0 or seen.high >= _LARGEST_LOG or found.kind == "normalised"
        if values == "log1p" and odd:
            raise UserError(
                f"{source.name}: values from {seen.low:.4g} to {seen.high:.4g} are neither "
                f"counts nor log1p values ({found.evidence})",
                hint=detect.matrix_of(source, ("counts", "log1p"))
                or "--values stored tests them as they are",
            )
        return counts, None
    sparse, kind = source.nnz is not None, precision(source.dtype)
    target = median_target(seen.totals, sparse=sparse, precision=kind)
    console.say(
        f"{source.name}: counts become log1p, each cell scaled to the median, {target:,.6g}"
    )
    return counts, divisors(seen.totals, target)


def _unlogged(block: Any) -> Any:
    return replace(block, data=np.expm1(block.data.astype(np.float64)))


def tables(
    cells: ScreenCells, labels: find_labels.Labels, choices: Choices
) -> Iterator[tuple[str | None, significance.DeTable]]:
    """Test every perturbation, and yield one table per stratum (None: there are no strata)."""
    try:
        for stratum, group, names in _strata(cells.source, labels, choices.stratify):
            controls = np.flatnonzero(group == 0 if labels.control else group >= 0)
            genes = np.flatnonzero(_expressed(cells, controls, labels.control, choices.min_cpm))
            yield stratum, _test(cells, group, names, genes, choices)
    finally:
        if cells.cells is not None:
            cells.cells.close()


def _strata(
    source: CellSource, found: find_labels.Labels, stratify: str | None
) -> Iterator[tuple[str | None, NDArray[np.int32], NDArray[np.str_]]]:
    """Yield the groups of cells of each stratum: 0 the control, then perturbations by name."""
    column = source.obs(found.perturbation_column)
    labels = column.categories
    named = labels[column.counts() > 0].tolist() if found.control else []  # else groups of any kind
    if several := alike(named, found.control):
        console.warn(of_the_same_targets(several))
    if stratify is None:
        yield None, *numbered(labels, column.codes, found.control)
        return
    strata = source.obs(stratify)
    for number, name in enumerate(strata.categories.tolist()):
        codes = np.where(strata.codes == number, column.codes, -1)
        present = set(labels[np.unique(codes[codes >= 0])].tolist())
        if (found.control and found.control not in present) or len(present) < 2:
            console.warn(f"{stratify} {name} has no controls or nothing else: left out")
            continue
        yield name, *numbered(labels, codes, found.control)


def numbered(
    labels: NDArray[np.str_], codes: NDArray[np.integer[Any]], control: str
) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Return each cell's group, 0 the control if there is one, and the groups' names; -1: none."""
    present = set(labels[np.unique(codes[codes >= 0])].tolist())
    names = [*([control] if control else []), *sorted(present - {control})]
    place = {name: i for i, name in enumerate(names)}
    numbers = np.array([*(place.get(name, -1) for name in labels.tolist()), -1], np.int32)
    return numbers[codes], np.array(names)


def _test(
    cells: ScreenCells,
    group: NDArray[np.int32],
    names: NDArray[np.str_],
    genes: NDArray[np.int64],
    choices: Choices,
) -> significance.DeTable:
    """Test every group of one stratum."""
    rest, wilcoxon = choices.against == "rest", choices.test == "wilcoxon"
    n_genes = cells.source.n_genes
    dense = cells.source.nnz is None
    if wilcoxon and cells.cells is not None:
        found = grouped(
            GeneMajorSources([SourcePart(cells.cells, cells.divisor)], n_genes), group, len(names),
            dense=dense,
            against="rest" if rest else "reference", threads=choices.threads,
        )  # fmt: skip
    else:
        found = summarise(
            cells.blocks, group, len(names), n_genes, squares=True, dense=dense, against=None
        )
    means = None
    if choices.fold_change == "arithmetic":
        means = summarise(cells.linear, group, len(names), n_genes, against=None).means
    return significance.differential(
        _columns(found, genes), names, cells.source.genes[genes],
        test=choices.test, against=choices.against, fold_change=choices.fold_change,
        scope=choices.fdr, means=None if means is None else means[:, genes],
        eps=EPSILON if choices.fold_change == "arithmetic" else 0.0,
    )  # fmt: skip


def _expressed(
    cells: ScreenCells, controls: NDArray[np.int64], control: str, min_cpm: float
) -> NDArray[np.bool_]:
    """Return which genes are expressed enough in the controls to be tested."""
    if not min_cpm:
        return np.ones(cells.source.n_genes, bool)
    kept = cells.cpm(controls) > min_cpm
    where = "the controls" if control else "all cells"
    console.say(f"above {min_cpm:g} CPM in {where}: {console.count(int(kept.sum()), 'gene')}")
    if not kept.any():
        raise UserError("no gene is expressed that much", hint="lower --min-cpm")
    return kept


def _columns(grouped: Grouped, genes: NDArray[np.int64]) -> Grouped:
    """Select some genes, ascending."""
    if len(genes) == grouped.own_means.shape[1]:
        return grouped

    def cut(table: NDArray[Any]) -> NDArray[Any]:
        return table[:, genes] if table.size else table

    return Grouped(
        grouped.sizes, cut(grouped.sums), cut(grouped.squares), cut(grouped.own_means),
        cut(grouped.u), cut(grouped.ties),
    )  # fmt: skip
