"""Many statistics in one pass over the cells.

`engine` reads a source once and passes its cells to reducers; `reducers` are the statistics;
`resume` stores the results of a pass in files; `dask` runs the same pass on other machines.
"""

from __future__ import annotations

from vcell.passes.engine import (
    LANES,
    SPAN,
    TILE,
    CellRules,
    CellSpan,
    CellTable,
    Reader,
    Reducer,
    Task,
    run,
)

__all__ = [
    "LANES",
    "SPAN",
    "TILE",
    "CellRules",
    "CellSpan",
    "CellTable",
    "Reader",
    "Reducer",
    "Task",
    "run",
]
