"""Highly variable genes in bounded memory, with scanpy's results.

A flavour is a *plan*: the reducers that it needs from one pass over the cells, and a method that
ranks genes by their results (with a second pass if necessary). Other reducers can share the first
pass:

    plan = make_plan(FlavorSettings(...))
    table = read([*plan.reducers(), others...])
    ranking = plan.finish(read, table)

`highly_variable` does this for a `CellSource`. The formulas follow scanpy 1.11, its order of
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
