"""One side's cells as the rules want their values: rows and columns chosen, counts logged.

scanpy's arithmetic in scanpy's precision, because ranks see the last bit: a cell's counts divided
by (its total / the target) in float32, then log1p in float32. The target of 2025 is the median
total of the file's own cells, as cell-eval has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import Block, detect
from vcell.errors import UserError
from vcell.kernels import ranks
from vcell_evaluate.inputs import CONTROL_GROUP, Pair, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

_SMALL = 64  # counts below this are looked up
_LARGEST_LOG = 15.0  # cell-eval refuses log1p values of this size or more
# How far the totals of two log1p sides may lie apart: real scales differ by a factor of five or
# more (1e4, the median, 1e6), a model's smoothed cells by less than two
_WARN, _REFUSE = 1.1, 3.0


@dataclass(frozen=True)
class View:
    """Blocks of one side, ready for the rules; the interface that metrics read from."""

    side: Side
    divisor: NDArray[np.float32] | None  # per cell of the file: total / target; None: log1p as is
    facts: dict[str, Any]
    gene_counts: NDArray[np.int64]  # non-zeros of each gene among the cells that count

    def blocks(self, rows: NDArray[np.int64] | None = None) -> Iterator[Block]:
        """Yield the chosen cells as log1p values, columns in the shared order."""
        wanted = self.side.rows() if rows is None else rows
        for block in self.side.source.chunks(rows=wanted, genes=self.side.columns):
            yield block if self.divisor is None else _logged(block, self.divisor[block.rows])


def _logged(block: Block, divisor: NDArray[np.float32]) -> Block:
    """Return log1p(counts / divisor); small counts, nearly all, are looked up per cell."""
    table = np.log1p(np.arange(_SMALL, dtype=np.float32) / divisor[:, None])
    out = np.empty(len(block.data), np.float32)
    if ranks.look_up(block.indptr, block.data, table, out):
        left = np.flatnonzero(out < 0)
        cell = np.searchsorted(block.indptr, left, side="right") - 1
        out[left] = np.log1p(block.data[left] / divisor[cell])
    return replace(block, data=out)


def views(pair: Pair) -> tuple[View, View]:
    """Look at both sides' values, check every one, and refuse two that cannot be compared."""
    sides = (pair.real, pair.pred)
    found = [detect.scale(side.source) for side in sides]
    logged = [f.target_sum for f in found if f.kind == "log1p"]
    # counts beside log1p values are scaled to what those were scaled to, where that can be seen
    target = next((t for t in logged if t), None)
    real, pred = (_view(side, f, target) for side, f in zip(sides, found, strict=True))
    _compare(pair, real, pred)
    return real, pred


def _view(side: Side, found: detect.Scale, target: float | None) -> View:
    name, counts = side.source.name, found.kind == "counts"
    totals, extremes, gene_counts = _scan(side)
    _check_values(name, extremes, counts=counts)
    facts: dict[str, Any] = {
        "values": "counts" if counts else "log1p",
        "evidence": found.evidence,
        "largest": extremes.high,
        "cells": int((side.group >= 0).sum()),
        "controls": int((side.group == CONTROL_GROUP).sum()),
    }
    if not counts:
        if found.kind != "log1p":
            console.warn(f"{name}: not whole and below 15, so the values are taken for log1p")
        to = found.target_sum if found.kind == "log1p" else None
        sums = {"target_sum": to, "median_total": _median_total(side)}
        return View(side, None, facts | sums, gene_counts)
    own = totals[side.rows()]
    scale = np.float32(target) if target else _median(own, sparse=side.source.nnz is not None)
    why = "the other side's total" if target else "the median"
    console.say(f"{name}: counts become log1p, each cell scaled to {why}, {scale:,.6g}")
    divisor = np.where(totals > 0, totals, scale).astype(np.float32) / scale
    sums = {"target_sum": float(scale), "median_total": float(scale)}
    return View(side, divisor, facts | sums, gene_counts)


@dataclass
class Extremes:
    """The least and largest value, and whether any value is not whole."""

    low: float = 0.0
    high: float = 0.0
    fractions: bool = False  # of more than 1e-3, where cell-eval draws the line
    not_finite: int = 0


def _scan(side: Side) -> tuple[NDArray[np.float64], Extremes, NDArray[np.int64]]:
    """Read every value once: totals per cell, what would be refused, non-zeros per gene."""
    source, found = side.source, Extremes()
    totals = np.zeros(source.n_cells)
    n_genes = source.n_genes if side.columns is None else len(side.columns)
    counts = np.zeros(n_genes, np.int64)
    with console.progress(f"reading {source.name}", source.n_cells) as bar:
        for block in source.chunks(rows=side.rows(), genes=side.columns):
            sums = np.empty(len(block.rows))
            low, high, fractions, odd = ranks.survey(block.indptr, block.data, sums)
            totals[block.rows] = sums
            ranks.count_genes(block.indices, counts)
            found.low, found.high = min(found.low, low), max(found.high, high)
            found.fractions |= fractions
            found.not_finite += odd
            bar.advance(len(block.rows))
    return totals, found, counts


def _median_total(side: Side) -> float:
    """Return the median over sampled cells of what their values add up to without the logarithm."""
    sums = [np.expm1(b.toarray()).sum(axis=1) for b in detect.sample(side.source)]
    totals = np.concatenate([*sums, np.zeros(0)])
    return float(np.median(totals[totals > 0])) if (totals > 0).any() else 0.0


def _check_values(name: str, found: Extremes, *, counts: bool) -> None:
    if found.not_finite:
        raise UserError(f"{name}: {found.not_finite:,} values are NaN or infinite")
    if found.low < 0:
        raise UserError(f"{name}: negative values, down to {found.low:.4g}")
    if counts and found.fractions:
        raise UserError(f"{name}: most values are whole but not all: counts and log1p are mixed")
    if not counts and found.high >= _LARGEST_LOG:
        raise UserError(
            f"{name}: values up to {found.high:.4g} are no log1p values (below {_LARGEST_LOG:g})",
            hint="give raw counts, or log1p of normalised counts",
        )


def _median(totals: NDArray[np.float64], *, sparse: bool) -> np.float32:
    """Return scanpy's target: it leaves empty cells out of dense matrices, not of sparse ones."""
    counted = totals if sparse else totals[totals > 0]
    target = np.median(counted.astype(np.float32)) if len(counted) else np.float32(0)
    return np.float32(target if target > 0 else 1)


def _compare(pair: Pair, real: View, pred: View) -> None:
    """Refuse sides on different scales: every score would be about the scale."""
    a, b = real.facts["median_total"], pred.facts["median_total"]
    if not a or not b:
        return
    ratio = max(a / b, b / a)
    words = (
        f"a cell of {pair.real.source.name} adds up to {a:,.5g} before the logarithm, one of "
        f"{pair.pred.source.name} to {b:,.5g}"
    )
    both_counts = real.divisor is not None and pred.divisor is not None
    exact = real.facts["target_sum"] and pred.facts["target_sum"] and not both_counts
    if not both_counts and (ratio > _REFUSE or (exact and ratio > 1.01)):
        raise UserError(
            f"the two sides were normalised differently: {words}",
            hint="normalise both to the same total before log1p, or give raw counts on both sides",
        )
    if ratio > _WARN:
        why = ": each is scaled to its own median, as cell-eval does" if both_counts else ""
        console.warn(f"{words}{why}")
