"""Run a worker on one device in this process, or on several through torchrun's API.

    launch("vcell_train_vcc.work:train", run, config)      # config inherits LaunchOptions

The worker is a function of the run, named by module; everything else it needs stands in the run
directory. One process: it is called right here. Several: `vcell.launch.elastic` starts them.
Plugins import this in their `__init__`, so `vcell.runs` (15 ms) is imported only where it is
needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import DiskFull, RunFailed, UserError, VcellError
from vcell.launch.options import LaunchOptions
from vcell.launch.plan import Plan, make_plan
from vcell.signals import ended_by_signals

if TYPE_CHECKING:
    from vcell.runs import Run, Status

__all__ = [
    "LaunchOptions",
    "Plan",
    "ended_by_signals",
    "join_run",
    "launch",
    "make_plan",
    "resume_run",
]

_PATIENCE = 3600.0  # seconds: the machine that leads may measure large files first


def launch(worker: str, run: Run, plan: Plan) -> None:
    """Run `worker` as planned and return when it has ended well.

    The run ends as ``done`` unless the worker said otherwise; ``interrupted`` after a signal or a
    request to stop; ``failed`` otherwise.

    Raises
    ------
    KeyboardInterrupt
        The run was interrupted, with its last checkpoint written.
    UserError, RunFailed
        The run failed; the message is that of its first failing process.
    """
    if plan.leads:
        talk = {"json": console.settings.json, "verbosity": console.settings.verbosity}
        run.update(
            worker=worker,
            device=plan.device,
            world_size=plan.world,
            job=plan.job,
            console=talk,
            launches=run.meta.get("launches", 0) + 1,
        )
    try:
        if plan.world == 1:
            with console.copied_to(run.console_log()):
                _here(worker, run)
        else:
            from vcell.launch import elastic

            elastic.start(run, plan)
    except KeyboardInterrupt:
        _end(run, "interrupted", plan)
        raise
    except VcellError as error:
        with suppress(DiskFull, OSError):  # what is raised below is why; this would hide it
            _end(run, "failed", plan, error=error.message)
        raise
    _end(run, "done", plan)
    if plan.leads and run.status() == "interrupted":
        raise KeyboardInterrupt


def _here(worker: str, run: Run) -> None:
    """Call the worker in this process; what it did not foresee is a failed run, told once."""
    from vcell.launch.worker import no_room, note_failure, resolve

    try:
        with ended_by_signals():
            resolve(worker)(run)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        if full := no_room(run, error):
            raise full from None
        if isinstance(error, VcellError):
            raise
        failure = note_failure(run, 0, error)
        console.error(str(failure["traceback"]).rstrip())
        where = run.path / "logs"
        raise RunFailed(str(failure["message"]), hint=f"the logs are in {where}") from None


def _end(run: Run, status: Status, plan: Plan, **summary: object) -> None:
    """End the run, unless its worker has done so."""
    if not plan.leads:
        return
    from vcell.runs import Run

    fresh = Run.open(run.path)  # with a log of its own: a killed worker may have torn the last line
    if fresh.meta.get("status") == "running" or status == "failed":
        fresh.finish(status, **summary)
    run.refresh()


def join_run(root: Path, plan: Plan, create: Callable[[str | None], Run]) -> tuple[Run, Plan]:
    """Return the run of this launch and this machine's part in it.

    `create` makes a run, of the given name if there is one. Several machines agree by the name of
    the job: the one whose folder comes first leads, the others wait for its run.json.
    """
    from vcell.runs import Run

    if plan.job is None:
        return create(None), plan
    folder = root / plan.job
    if plan.leads:
        try:
            return create(plan.job), plan
        except FileExistsError:
            plan = replace(plan, leads=False)
    _wait((folder / "run.json").is_file, f"for another machine to make {folder}")
    run = Run.open(folder)
    if run.meta.get("status") != "running":
        raise UserError(
            f"the job {plan.job!r} has run already, in {run.path}",
            hint="give this one another --job name",
        )
    return run, plan


def resume_run(run: Run, plan: Plan) -> Plan:
    """Take a run back into use; return this machine's part in it.

    Of several machines the one that claims it first leads, and under Slurm the first one.
    """
    if plan.leads:
        try:
            run.claim()
            run.update(job=plan.job)
        except UserError:
            if plan.job is None or run.meta.get("job") != plan.job:
                raise
            plan = replace(plan, leads=False)
        return plan

    def is_ours() -> bool:
        return run.status() == "running" and run.meta.get("job") == plan.job

    _wait(is_ours, f"for the first machine to go on with {run.name}")
    return plan


def _wait(until: Callable[[], bool], what: str) -> None:
    """Look again and again, on a file system that machines share."""
    begun = time.monotonic()
    if not until():
        console.say(f"waiting {what}")
    while not until():
        if time.monotonic() - begun > _PATIENCE:
            raise RunFailed(f"waited {_PATIENCE / 60:.0f} minutes {what}")
        time.sleep(0.2)
