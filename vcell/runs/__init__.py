"""Run directories: the only thing that training, monitor, report and predict share.

Standard library only, and the only package that writes into a run directory.
"""

from vcell.runs.checkpoints import Checkpoint
from vcell.runs.events import Event, EventLog, Tail
from vcell.runs.run import ROOT, Run, Status, find_runs, remove

__all__ = [
    "ROOT",
    "Checkpoint",
    "Event",
    "EventLog",
    "Run",
    "Status",
    "Tail",
    "find_runs",
    "remove",
]
