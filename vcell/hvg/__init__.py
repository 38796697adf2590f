"""Highly variable genes in bounded memory, with the result that scanpy would give.

A flavour is a *plan*: the reducers it needs from one pass over the cells, and how it makes a
ranking of their results (with a second pass where the method needs one). Other reducers can share
the first pass:

    plan = SeuratPlan(n_genes, n_top=2000, target_sum=1e4)
    table = read([*plan.reducers(), others...])
    ranking = plan.finish(read, table)

`highly_variable` does just that for a `CellSource`. The formulas follow scanpy 1.11, its order of
operations included, and are described in docs/select-genes.md.
"""

from __future__ import annotations

from vcell.hvg.plan import FLAVORS, BatchLabels, FlavorPlan, GeneFilter, Ranking, Read
from vcell.hvg.run import highly_variable, make_plan

__all__ = [
    "FLAVORS",
    "BatchLabels",
    "FlavorPlan",
    "GeneFilter",
    "Ranking",
    "Read",
    "highly_variable",
    "make_plan",
]
