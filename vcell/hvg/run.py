"""`highly_variable`: one flavour over one source, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import passes
from vcell.errors import UserError
from vcell.hvg.dispersion import DispersionPlan
from vcell.hvg.plan import FLAVORS, BatchLabels, FlavorPlan, FlavorSettings, Ranking
from vcell.hvg.residuals import ResidualPlan
from vcell.hvg.standardized import StandardizedPlan
from vcell.passes import CellRules

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.passes import CellTable


def make_plan(setting: FlavorSettings) -> FlavorPlan:
    """Return the plan of a flavour."""
    if setting.flavor not in FLAVORS:
        raise UserError(f"there is no flavour {setting.flavor!r}", hint=", ".join(FLAVORS))
    if setting.flavor in ("seurat", "cell_ranger"):
        return DispersionPlan(setting)
    if setting.target_sum is None:
        raise UserError(
            f"flavour {setting.flavor} needs raw counts; these values are log-normalised",
            hint="use --hvg-flavor seurat; --layer names a layer of counts, if there is one",
        )
    return (
        ResidualPlan(setting)
        if setting.flavor == "pearson_residuals"
        else StandardizedPlan(setting)
    )


def highly_variable(  # noqa: PLR0913 - each is a choice of the method
    source: CellSource,
    *,
    flavor: str = "seurat",
    n_top: int = 2000,
    batches: BatchLabels | None = None,
    target_sum: float | None = 1e4,
    min_cells: int = 0,
    rules: CellRules | None = None,
    threads: int | None = None,
    max_nnz: int | None = None,
) -> Ranking:
    """Rank the genes of a source by how much they vary.

    Parameters
    ----------
    source
        An open `CellSource`.
    flavor
        One of `vcell.hvg.FLAVORS`.
    n_top
        Number of genes to select.
    batches
        Select within each batch and combine, as scanpy with ``batch_key``.
    target_sum
        The total that counts are normalised to; 0 for the median of the cells' totals (one more
        pass); None says that the values are log1p already.
    min_cells
        Leave out genes found in fewer cells, before normalising.
    rules
        Rules that leave out cells.

    Returns
    -------
    Ranking
        The ranking, whose ``selected`` equals scanpy's ``highly_variable``.
    """
    read = passes.Reader(source, rules or CellRules(), threads, max_nnz, label=None)
    if target_sum == 0:
        table = read([])
        target_sum = median_total(table)
    setting = FlavorSettings(
        flavor=flavor,
        n_genes=source.n_genes,
        n_cells=source.n_cells,
        n_top=n_top,
        target_sum=target_sum,
        single=np.dtype(source.dtype) == np.float32,
        genes=source.genes,
        batches=batches,
        min_cells=min_cells,
    )
    plan = make_plan(setting)
    return plan.finish(read, read(plan.reducers()))


def median_total(table: CellTable) -> float:
    """Return the median of the kept cells' totals, in float32 as in scanpy."""
    return float(np.median(table.totals[table.kept].astype(np.float32)))
