"""The statistics that a pass can collect; `vcell.passes` describes how and in which order."""

from __future__ import annotations

from vcell.passes.reducers.genes import (
    ClippedSums,
    GeneMoments,
    NormalizedMoments,
    ResidualSums,
    cell_scale,
)
from vcell.passes.reducers.groups import GroupLogMoments, GroupSums
from vcell.passes.reducers.histogram import CountHistogram
from vcell.passes.reducers.rare import MarkedTotals, RareEntries

__all__ = [
    "ClippedSums",
    "CountHistogram",
    "GeneMoments",
    "GroupLogMoments",
    "GroupSums",
    "MarkedTotals",
    "NormalizedMoments",
    "RareEntries",
    "ResidualSums",
    "cell_scale",
]
