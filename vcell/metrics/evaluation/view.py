"""One side's cells with the values that the rules need: rows and columns selected, counts as log1p.

Counts are scaled to the median total of the file's own cells, as in cell-eval, unless the other
side is log1p of a total that can be detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import Block, detect
from vcell.errors import UserError
from vcell.metrics.by_gene import GeneMajor
from vcell.metrics.evaluation.pairs import CONTROL_GROUP, Pair, Side
from vcell.metrics.gene_major import AT_ONCE, GeneMajorSources, SourcePart, transpose
from vcell.metrics.scaled import ValueSurvey, divisors, logged, median_target, merged, precision

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_LOG = 15.0  # cell-eval refuses log1p values of this size or more
# Largest ratio between the totals of two log1p sides: real scales differ by a factor of five or
# more (1e4, the median, 1e6), cells smoothed by a model by less than two
_WARN, _REFUSE = 1.1, 3.0


@dataclass(frozen=True)
class View:
    """Blocks of one side, ready for the rules; the interface that metrics read from."""

    side: Side
    divisor: NDArray[np.floating] | None  # per cell of the file: total / target; None: is log1p
    facts: dict[str, Any]
    cells: GeneMajor  # cells that have a group, transposed

    def gene_major(self) -> GeneMajorSources:
        """Return the cells as log1p values, gene by gene."""
        return GeneMajorSources([SourcePart(self.cells, self.divisor)], self.cells.n_genes)

    def blocks(self, rows: NDArray[np.int64] | None = None) -> Iterator[Block]:
        """Yield the chosen cells as log1p values, columns in the shared order."""
        wanted = self.side.rows() if rows is None else rows
        source = self.side.source
        for block in source.chunks(wanted, self.side.columns, dtype=precision(source.dtype)):
            yield block if self.divisor is None else logged(block, self.divisor[block.rows])


def views(pair: Pair, threads: int | None) -> Iterator[View]:
    """Yield the real cells, then the predicted ones, transposed; each is read when needed.

    Every value is checked, and sides that cannot be compared raise an error. Predicted cells that
    use the real controls are numbered after the real cells.
    """
    sides = (pair.real, pair.pred)
    found = [detect.scale(side.source) for side in sides]
    logged = [f.target_sum for f in found if f.kind == "log1p"]
    # if the other side is log1p, counts are scaled to its total, where that can be detected
    target = next((t for t in logged if t), None)
    real = _view(pair.real, found[0], target, 0, threads)
    yield real
    offset = len(pair.real.group) if pair.borrowed else 0
    pred = _view(pair.pred, found[1], target, offset, threads)
    _compare(pair, real.facts, pred.facts)
    yield pred


def _view(
    side: Side, found: detect.Scale, target: float | None, offset: int, threads: int | None
) -> View:
    name, counts = side.source.name, found.kind == "counts"
    n_genes = side.source.n_genes if side.columns is None else len(side.columns)
    cells = GeneMajor(n_genes, offset=offset)
    seen = merged(
        transpose(cells, seen_blocks(side), side.group, threads=threads, survey=True),
        side.source.n_cells,
    )
    _check_values(name, seen, counts=counts)
    facts: dict[str, Any] = {
        "values": "counts" if counts else "log1p",
        "evidence": found.evidence,
        "largest": seen.high,
        "cells": int((side.group >= 0).sum()),
        "controls": int((side.group == CONTROL_GROUP).sum()),
    }
    if not counts:
        if found.kind == "empty":
            console.warn(f"{name}: no value differs from zero")
        elif found.kind != "log1p":
            console.warn(f"{name}: not whole and below 15, so the values are taken for log1p")
        to = found.target_sum if found.kind == "log1p" else None
        sums = {"target_sum": to, "median_total": _median_total(side)}
        return View(side, None, facts | sums, cells)
    own = seen.totals[side.rows()]
    kind, sparse = precision(side.source.dtype), side.source.nnz is not None
    scale = kind(target) if target else median_target(own, sparse=sparse, precision=kind)
    why = "the other side's total" if target else "the median"
    console.say(f"{name}: counts become log1p, each cell scaled to {why}, {scale:,.6g}")
    divisor = divisors(seen.totals, scale)
    sums = {"target_sum": float(scale), "median_total": float(scale)}
    return View(side, divisor, facts | sums, cells)


def seen_blocks(side: Side) -> Iterator[Block]:
    """Yield the cells that have a group, columns in the shared order; show progress."""
    rows, kind = side.rows(), precision(side.source.dtype)
    with console.progress(f"reading {side.source.name}", len(rows)) as bar:
        for block in side.source.chunks(rows, side.columns, dtype=kind, max_nnz=AT_ONCE):
            yield block
            bar.advance(len(block.rows))


def _median_total(side: Side) -> float:
    """Return the median over sampled cells of what their values add up to without the logarithm."""
    sums = [np.zeros(0)]
    for block in detect.sample(side.source):
        below = np.concatenate(([0.0], np.cumsum(np.expm1(block.data), dtype=np.float64)))
        sums.append(below[block.indptr[1:]] - below[block.indptr[:-1]])
    totals = np.concatenate(sums)
    return float(np.median(totals[totals > 0])) if (totals > 0).any() else 0.0


def _check_values(name: str, found: ValueSurvey, *, counts: bool) -> None:
    found.require_finite(name)
    if found.low < 0:
        raise UserError(f"{name}: negative values, down to {found.low:.4g}")
    if counts and found.fractions:
        raise UserError(f"{name}: most values are whole but not all: counts and log1p are mixed")
    if not counts and found.high >= _LARGEST_LOG:
        raise UserError(
            f"{name}: values up to {found.high:.4g} are not log1p values (below {_LARGEST_LOG:g})",
            hint="give raw counts, or log1p of normalised counts",
        )


def _compare(pair: Pair, real: dict[str, Any], pred: dict[str, Any]) -> None:
    """Raise an error for sides on different scales: every score would reflect the scale."""
    a, b = real["median_total"], pred["median_total"]
    if not a or not b:
        return
    ratio = max(a / b, b / a)
    words = (
        f"a cell of {pair.real.source.name} adds up to {a:,.5g} before the logarithm, one of "
        f"{pair.pred.source.name} to {b:,.5g}"
    )
    both_counts = real["values"] == pred["values"] == "counts"
    exact = real["target_sum"] and pred["target_sum"] and not both_counts
    if not both_counts and (ratio > _REFUSE or (exact and ratio > 1.01)):
        raise UserError(
            f"the two sides were normalised differently: {words}",
            hint="normalise both to the same total before log1p, or give raw counts on both sides",
        )
    if ratio > _WARN:
        why = ": each is scaled to its own median, as cell-eval does" if both_counts else ""
        console.warn(f"{words}{why}")
