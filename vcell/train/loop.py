"""Train a task into a run directory, or resume where the run ended.

    result = Trainer(task, options, run).fit()

The run directory decides where to start: a run with a checkpoint is resumed. Twenty steps
equal ten, a kill and ten more; bit for bit, with one process on a CPU.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from vcell.train import parallel, sinks, trouble
from vcell.train.control import Signals
from vcell.train.session import Result, Session
from vcell.train.watch import watching

if TYPE_CHECKING:
    from vcell.runs import Run
    from vcell.train.options import TrainOptions
    from vcell.train.task import Task

_TOO_LARGE = "take a smaller model, or --parallel fsdp on several GPUs"
__all__ = ["Result", "Trainer"]


class Trainer:
    """Train a task into a run directory.

    Parameters
    ----------
    task
        What to train; see `vcell.train.task.Task`.
    options
        How to train it.
    run
        The run directory; training resumes from its newest checkpoint, if it has one.
    device
        ``cpu``, ``cuda`` or ``auto``; by default as recorded in the run by the launcher.
    """

    def __init__(
        self, task: Task, options: TrainOptions, run: Run, *, device: str | None = None
    ) -> None:
        self.task, self.options, self.run = task, options, run
        self.device = device or str(run.meta.get("device", "auto"))

    def fit(self) -> Result:
        """Train to the end, or until it is stopped; every rank calls this.

        If it was stopped from outside (`Result.cut_short`) the run is finished as interrupted, and
        the caller should return without doing more.
        """
        with parallel.joined(self.device) as place, Signals() as signals, ExitStack() as stack:
            if place.leads:
                stack.enter_context(sinks.following(self.run, self.options.sinks))
            with trouble.explained("preparing the model and its optimiser", _TOO_LARGE):
                session = Session(self.task, self.options, self.run, place, signals)
                stack.callback(session.close)
                session.resume()
            with (
                trouble.explained("training", _TOO_LARGE),
                watching(session.log, session.accelerator),
            ):
                result = session.train()
            if place.leads and result.cut_short:
                self.run.finish("interrupted", step=result.step, reason=result.ended)
            return result
