"""Run directories: the only interface between training, monitor, report and predict.

Standard library only, and the only package that writes into a run directory.
"""

from vcell.runs.checkpoints import Checkpoint
from vcell.runs.events import Event, EventLog, Tail
from vcell.runs.history import Best, History
from vcell.runs.run import Run, find_runs, remove
from vcell.runs.stored import ROOT, Status, differing
from vcell.runs.table import EventTable, Series

__all__ = [
    "ROOT",
    "Best",
    "Checkpoint",
    "Event",
    "EventLog",
    "EventTable",
    "History",
    "Run",
    "Series",
    "Status",
    "Tail",
    "differing",
    "find_runs",
    "remove",
]
