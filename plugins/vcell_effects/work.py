"""The work of `vcell effects`: means and variances of every group of cells, in one pass.

P rows, each a perturbation in a context; N genes; B groups of matched controls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell import console, outputs
from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.errors import UserError
from vcell.screen.design import Design, ScreenRows
from vcell.screen.prior_effects import PriorEffects

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell_effects import EffectsOptions

    Array = NDArray[np.float64]


def run(cells: Path | None, config: EffectsOptions) -> None:
    """Measure, write, and say what was found."""
    path, out = cells or config.cells, config.output
    if path is None:
        raise UserError("no cells to measure", hint="vcell effects cells.h5ad -o effects.parquet")
    outputs.check(out, inputs=[path], overwrite=config.overwrite, suffixes=(".parquet",))
    with open_cells(path, config.layer, join=config.join) as source:
        detect.refuse_repeated(source)
        scale = detect.require_counts_or_logs(source)
        found = labels.find(source, config)
        design = Design.read(source, found)
        total = config.target_sum
        if scale.kind == COUNTS and total is None:
            total = median_total(source, np.flatnonzero(design.control))
        log_cells = LogCells(source, scale.kind, total or np.nan)
        rows = ScreenRows.of(design, config.min_cells)
        effects = measured(log_cells, rows, design)
        about = {"source": source.name, "target_sum": log_cells.target_sum}
    if not np.isfinite(effects.effect).all():
        raise UserError(
            f"{path} has values that are not finite", hint="vcell inspect --full counts them"
        )
    effects.write(out, {name: v if v == v else None for name, v in about.items()})  # noqa: PLR0124
    z = np.abs(effects.effect) / np.maximum(effects.error, 1e-12)
    strong = (z > _STRONG).sum(axis=1)
    order = np.argsort(-strong, kind="stable")[:_SHOWN]
    table = [
        [effects.perturbations[i], effects.contexts[i], int(effects.cells[i]), int(strong[i])]
        for i in order
    ]
    console.result(
        {"output": str(out), "perturbations": len(rows), "genes": len(effects.genes)},
        f"{out}: {console.count(len(rows), 'effect')} on "
        f"{console.count(len(effects.genes), 'gene')}\n\n"
        + console.table(
            table, ("perturbation", "context", "cells", f"genes beyond {_STRONG} errors")
        ),
    )


_STRONG, _SHOWN = 5, 10  # standard errors; rows of the table


def measured(cells: LogCells, rows: ScreenRows, design: Design) -> PriorEffects:
    """Return effects against matched controls, and the standard error of each gene's."""
    n, n_matched = len(rows), design.n_matched
    group = np.where(design.control, n + design.matched, rows.of_cell)
    mean, variance, count = gene_moments(cells, group, n + n_matched)
    share = np.zeros((n, n_matched))
    own = rows.of_cell >= 0
    np.add.at(share, (rows.of_cell[own], design.matched[own]), 1)
    controls, spread, size = mean[n:], variance[n:], count[n:]
    bare = (size == 0) & (share.sum(axis=0) > 0)
    if bare.all() or not size.any():
        raise UserError(
            "no batch has both controls and perturbed cells: batch and effect cannot be told apart",
            hint="if that column does not hold batches, name the one that does with --batch-column",
        )
    if bare.any():
        console.warn(
            f"without control cells: {console.count(int(bare.sum()), 'batch', 'batches')}, "
            "compared with the controls of all batches"
        )
        controls[bare] = size @ controls / size.sum()
        spread[bare] = (size @ spread / size.sum()) / size.sum()
        size = np.where(bare, 1, size)
    share /= share.sum(axis=1, keepdims=True)
    noise = variance[:n] / np.maximum(count[:n], 1)[:, None]
    noise += share**2 @ (spread / np.maximum(size, 1)[:, None])
    return PriorEffects(
        [str(gene) for gene in cells.source.genes],
        list(rows.names),
        [design.contexts[c] for c in rows.context],
        count[:n],
        (mean[:n] - share @ controls).astype(np.float32),
        np.sqrt(noise).astype(np.float32),
    )


def gene_moments(
    cells: LogCells, codes: NDArray[np.int64], n_groups: int
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return means and variances (groups, N) and counts of the groups; code -1: in none."""
    wanted = np.flatnonzero(codes >= 0)
    total, square = np.zeros((2, n_groups, cells.n_genes))
    for numbers, block in cells.blocks(None if len(wanted) == len(codes) else wanted):
        code = codes[numbers]
        member = sp.csr_array(
            (np.ones(len(code)), (code, np.arange(len(code)))), (n_groups, len(code))
        )
        for table, values in ((total, block), (square, block.multiply(block))):
            summed = (member @ values).tocoo()
            table[summed.row, summed.col] += summed.data
    count = np.bincount(codes[wanted], minlength=n_groups)
    mean = total / np.maximum(count, 1)[:, None]
    square -= count[:, None] * mean**2
    return mean, np.maximum(square, 0) / np.maximum(count - 1, 1)[:, None], count
