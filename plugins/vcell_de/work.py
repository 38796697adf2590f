"""Read the cells once or twice, test them, and write the table perturbation by perturbation."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import CellSource, detect
from vcell.data import labels as find_labels
from vcell.errors import UserError
from vcell.metrics import de
from vcell.metrics.groups import Grouped, summarise
from vcell.metrics.scaled import Survey, divisors, logged, median_target, shares, survey
from vcell_de.tables import TableWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vcell_de import De

_EPSILON = 1e-9  # added to both means of the arithmetic fold change, as pdex and cell-eval2 do


@dataclass(frozen=True)
class Cells:
    """The cells to test, and what is known of their values."""

    source: CellSource
    seen: Survey
    counts: bool
    divisor: NDArray[np.float32] | None

    def blocks(self) -> Iterator[Any]:
        """Yield the values that are tested."""
        for block in self.source.chunks():
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


def _unlogged(block: Any) -> Any:
    return replace(block, data=np.expm1(block.data.astype(np.float64)))


def run(file: Path, config: De) -> None:
    """Test and write."""
    from vcell.data import open_cells

    out = _output(config)
    started = time.monotonic()
    with open_cells(file, layer=config.layer) as source:
        found = find_labels.find(source, config)
        cells = _look(source, config)
        facts: dict[str, Any] = {"file": str(file), "rows": 0, "significant": 0, "strata": {}}
        with TableWriter(out, config.layout, stratified=config.stratify is not None) as writer:
            for stratum, group, names in _strata(source, found, config):
                table = _test(cells, group, names, config)
                writer.append(table, stratum)
                facts["rows"] += table.p.size
                facts["significant"] += int((table.fdr < 0.05).sum())
                facts["strata"][stratum or "all cells"] = len(table.perturbations)
    facts |= {
        "output": str(out), "control": found.control, "test": config.test,
        "against": config.against, "fold_change": config.fold_change, "fdr": config.fdr,
        "values": "log1p" if cells.divisor is not None or not cells.counts else "as stored",
        "seconds": round(time.monotonic() - started, 2),
    }  # fmt: skip
    console.result(
        facts,
        f"{facts['rows']:,} tests, {facts['significant']:,} with FDR below 0.05, "
        f"in {console.duration(facts['seconds'])}\nwritten: {out}",
    )


def _output(config: De) -> Path:
    out = config.output
    if out is None:
        raise UserError("no output is named", hint="add -o de.parquet (or .csv)")
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"{out}: tables are written as .parquet or .csv")
    if out.exists() and not config.overwrite:
        raise UserError(f"{out} exists already", hint="add --overwrite to replace it")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out.parent} is not a folder", hint="create it first")
    return out


def _look(source: CellSource, config: De) -> Cells:
    """Look at every value, and decide how they are logged."""
    found = detect.scale(source)
    with console.progress(f"reading {source.name}", source.n_cells) as bar:

        def blocks() -> Iterator[Any]:
            for block in source.chunks():
                yield block
                bar.advance(len(block.rows))

        seen = survey(blocks(), source.n_cells, source.n_genes)
    if seen.not_finite:
        raise UserError(f"{source.name}: {seen.not_finite:,} values are NaN or infinite")
    counts = found.kind == "counts" and not seen.fractions
    if counts and seen.low < 0:
        raise UserError(f"{source.name}: negative counts, down to {seen.low:.4g}")
    if config.values == "stored" or not counts:
        if not counts and config.values == "log1p" and (seen.low < 0 or seen.high >= 15):
            raise UserError(
                f"{source.name}: values from {seen.low:.4g} to {seen.high:.4g} are neither counts "
                "nor log1p values",
                hint="--values stored tests them as they are",
            )
        return Cells(source, seen, counts, None)
    target = median_target(seen.totals, sparse=source.nnz is not None)
    console.say(
        f"{source.name}: counts become log1p, each cell scaled to the median, {target:,.6g}"
    )
    return Cells(source, seen, counts, divisors(seen.totals, target))


def _strata(
    source: CellSource, found: find_labels.Labels, config: De
) -> Iterator[tuple[str | None, NDArray[np.int32], NDArray[np.str_]]]:
    """Yield the groups of cells of each stratum: 0 the control, then perturbations by name."""
    column = source.obs(found.perturbation_column)
    labels = column.categories
    if config.stratify is None:
        yield None, *_numbered(labels, column.codes, found.control)
        return
    strata = source.obs(config.stratify)
    for number, name in enumerate(strata.categories.tolist()):
        codes = np.where(strata.codes == number, column.codes, -1)
        present = set(labels[np.unique(codes[codes >= 0])].tolist())
        if found.control not in present or len(present) < 2:
            console.warn(f"{config.stratify} {name} has no controls or nothing else: left out")
            continue
        yield name, *_numbered(labels, codes, found.control)


def _numbered(
    labels: NDArray[np.str_], codes: NDArray[np.integer[Any]], control: str
) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    present = labels[np.unique(codes[codes >= 0])].tolist()
    names = [control, *sorted(name for name in present if name != control)]
    place = {name: i for i, name in enumerate(names)}
    numbers = np.array([*(place.get(name, -1) for name in labels.tolist()), -1], np.int32)
    return numbers[codes], np.array(names)


def _test(cells: Cells, group: NDArray[np.int32], names: NDArray[np.str_], config: De) -> de.Table:
    """Test every group of one stratum."""
    rest, wilcoxon = config.against == "rest", config.test == "wilcoxon"
    n_genes = cells.source.n_genes
    whole = bool((group >= 0).all())
    grouped = summarise(
        cells.blocks, group, len(names), n_genes, squares=not wilcoxon,
        dense=cells.source.nnz is None,
        against=("rest" if rest else "reference") if wilcoxon else None,
        gene_counts=cells.seen.gene_counts if whole else None, threads=config.threads,
    )  # fmt: skip
    means = None
    if config.fold_change == "arithmetic":
        means = summarise(cells.linear, group, len(names), n_genes, against=None).means
    genes = np.flatnonzero(_kept(cells, group, config))
    return de.differential(
        _columns(grouped, genes), names, cells.source.genes[genes],
        test=config.test, against=config.against, fold_change=config.fold_change,
        scope=config.fdr, means=None if means is None else means[:, genes],
        eps=_EPSILON if config.fold_change == "arithmetic" else 0.0,
    )  # fmt: skip


def _kept(cells: Cells, group: NDArray[np.int32], config: De) -> NDArray[np.bool_]:
    """Return which genes are expressed enough in the controls to be tested."""
    if not config.min_cpm:
        return np.ones(cells.source.n_genes, bool)
    kept = cells.cpm(np.flatnonzero(group == 0)) > config.min_cpm
    console.say(f"{int(kept.sum()):,} genes exceed {config.min_cpm:g} CPM in the controls")
    if not kept.any():
        raise UserError("no gene is expressed that much", hint="lower --min-cpm")
    return kept


def _columns(grouped: Grouped, genes: NDArray[np.int64]) -> Grouped:
    """Keep some genes."""

    def cut(table: NDArray[Any]) -> NDArray[Any]:
        return table[:, genes] if table.size else table

    return Grouped(
        grouped.sizes, cut(grouped.sums), cut(grouped.squares), cut(grouped.mean32),
        cut(grouped.u), cut(grouped.ties),
    )  # fmt: skip
