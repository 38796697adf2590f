"""One reading of the cells, many statistics.

`engine` walks a source once and hands its cells to reducers; `reducers` are the statistics;
`resume` keeps the results of a pass in files; `dask` is the same pass on other machines.
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
