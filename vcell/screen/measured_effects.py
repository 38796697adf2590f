"""Effects of every perturbation of a screen, with standard errors: means and variances in one pass.

P rows, each a perturbation in a context; N genes; B groups of matched controls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.errors import UserError
from vcell.screen.design import Design, ScreenRows, confounded
from vcell.screen.prior_effects import PriorEffects
from vcell.screen.pseudobulk import indicator

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from vcell.config import ColumnOptions
    from vcell.data.opening import Join

    Array = NDArray[np.float64]

FEWEST = 10  # cells of a perturbation


def of_cells(
    path: Path,
    options: ColumnOptions,
    *,
    min_cells: int = FEWEST,
    target_sum: float | None = None,
    join: Join = "strict",
) -> tuple[PriorEffects, dict[str, Any]]:
    """Measure the effects of a file of cells; return them with metadata for the output file.

    Parameters
    ----------
    options
        Names of columns; those not given are detected and reported.
    min_cells
        Fewest cells a perturbation must have.
    target_sum
        Total that counts are scaled to; the median of the controls if not given.
    join
        Genes of several files, see `vcell.config.ManyFiles`.
    """
    with open_cells(path, options.layer, join=join) as source:
        detect.refuse_repeated(source)
        scale = detect.require_counts_or_logs(source)
        found = labels.find(source, options)
        design = Design.read(source, found).by_targets()
        if scale.kind == COUNTS and target_sum is None:
            target_sum = median_total(source, np.flatnonzero(design.control))
        log_cells = LogCells(source, scale.kind, target_sum or np.nan)
        rows = ScreenRows.of(design, min_cells)
        effects = measured(log_cells, rows, design)
        total = log_cells.target_sum
        about = {"source": source.name, "target_sum": None if np.isnan(total) else total}
    if not np.isfinite(effects.effect).all():
        raise UserError(
            f"{path} has values that are not finite", hint="vcell inspect --full counts them"
        )
    return effects, about


def measured(cells: LogCells, rows: ScreenRows, design: Design) -> PriorEffects:
    """Return effects against matched controls, and the standard error of each gene's."""
    n, n_matched = len(rows), design.n_matched
    group = np.where(design.control, n + design.matched, rows.of_cell)
    mean, variance, count = gene_moments(cells, group, n + n_matched)
    share = np.zeros((n, n_matched))
    own = rows.of_cell >= 0
    np.add.at(share, (rows.of_cell[own], design.matched[own]), 1)
    controls, spread, size = mean[n:], variance[n:], count[n:]
    pooled = _pooled(spread, size) if (size > 1).any() else _pooled(variance[:n], count[:n])
    variance[count == 1] = pooled  # a single cell does not show it
    bare = (size == 0) & (share.sum(axis=0) > 0)
    if bare.all() or not size.any():
        raise confounded()
    if bare.any():
        console.warn(
            f"without control cells: {console.count(int(bare.sum()), 'batch', 'batches')}, "
            "compared with the controls of all batches"
        )
        controls[bare] = size @ controls / size.sum()
        spread[bare] = pooled / size.sum()
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


def _pooled(variance: Array, count: NDArray[np.int64]) -> Array:
    """Return the variance (N,) of a cell within its group."""
    free = np.maximum(count - 1, 0)
    return np.asarray(free @ variance / max(free.sum(), 1))


def gene_moments(
    cells: LogCells, codes: NDArray[np.int64], n_groups: int
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return means and variances (groups, N) and counts of the groups; code -1: in none."""
    wanted = np.flatnonzero(codes >= 0)
    total, square = np.zeros((2, n_groups, cells.n_genes))
    for numbers, block in cells.blocks(None if len(wanted) == len(codes) else wanted):
        code = codes[numbers]
        member = indicator(code, n_groups)
        for table, values in ((total, block), (square, block.multiply(block))):
            summed = (member @ values).tocoo()
            table[summed.row, summed.col] += summed.data
    count = np.bincount(codes[wanted], minlength=n_groups)
    mean = total / np.maximum(count, 1)[:, None]
    square -= count[:, None] * mean**2
    return mean, np.maximum(square, 0) / np.maximum(count - 1, 1)[:, None], count
