"""Run a worker on one device in this process, or on several through torchrun's API.

    launch("vcell_train_vcc.work:main", run, make_plan(config))  # config inherits LaunchOptions

The worker is a function of the run, named by module; everything else that it needs is in the run
directory. For one process, it is called in this process; `vcell.launch.elastic` starts several.
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

_PATIENCE = 3600.0  # seconds: the leading machine may read large files first


def launch(worker: str, run: Run, plan: Plan) -> None:
    """Run `worker` as planned, and return after it has succeeded.

    The run ends as ``done`` unless the worker said otherwise, as ``interrupted`` after a signal or
    a request to stop, and otherwise as ``failed``.

    Raises
    ------
    KeyboardInterrupt
        If the run was interrupted; its last checkpoint is written.
    UserError, RunFailed
        If the run failed; the message is that of the first process that failed.
    """
    if plan.leads:
        shown = {"json": console.settings.json, "verbosity": console.settings.verbosity}
        run.update(
            worker=worker,
            device=plan.device,
            world_size=plan.world,
            job=plan.job,
            console=shown,
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
        with suppress(DiskFull, OSError):  # must not hide the error raised below
            _end(run, "failed", plan, error=error.message)
        raise
    _end(run, "done", plan)
    if plan.leads and run.status() == "interrupted":
        raise KeyboardInterrupt


def _here(worker: str, run: Run) -> None:
    """Call the worker in this process; an unexpected error fails the run, and is reported once."""
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
    """Finish the run, unless its worker has done so."""
    if not plan.leads:
        return
    from vcell.runs import Run

    fresh = Run.open(run.path)  # with a new log: a killed worker may have torn the last line
    if fresh.meta.get("status") == "running" or status == "failed":
        fresh.finish(status, **summary)
    run.refresh()


def join_run(root: Path, plan: Plan, create: Callable[[str | None], Run]) -> tuple[Run, Plan]:
    """Return the run of this launch, and this machine's plan.

    `create` makes a run, with the given name if there is one. Several machines agree by the name of
    the job: the one that creates the folder leads, the others wait for its run.json. What a machine
    that died left of a run holds the name no longer; a run is gone on with by --resume.
    """
    from vcell.runs import Run, folders

    if plan.job is None:
        return create(None), plan
    folder = root / plan.job
    made, what = (folder / "run.json").is_file, f"for another machine to make {folder}"
    if plan.leads:
        with suppress(FileExistsError):
            return create(plan.job), plan
        _wait(lambda: made() or not folders.is_being_made(folder), what)
        if not made():  # the machine that began it is gone, and `create` removes what it left
            with suppress(FileExistsError):
                return create(plan.job), plan
        plan = replace(plan, leads=False)
    _wait(made, what)
    run = Run.open(folder)
    if (status := run.status()) != "running":
        raise _taken(run, plan, status)
    return run, plan


def _taken(run: Run, plan: Plan, status: Status) -> UserError:
    """Return the error for a job whose name is that of a run that is not running any more."""
    if status == "done":
        return UserError(
            f"the job {plan.job!r} has run already, in {run.path}",
            hint="give this one another --job name",
        )
    ended = "its process is gone" if status in ("crashed", "stalled") else f"it is {status}"
    return UserError(
        f"the job {plan.job!r} has run already, in {run.path}: {ended}",
        hint=f"--resume {run.name} goes on with it; another --job name begins a new run",
    )


def resume_run(run: Run, plan: Plan) -> Plan:
    """Reopen a run; return this machine's plan.

    Of several machines the first one to claim it leads, or under Slurm the first machine.
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
    """Poll a condition on a file system shared by the machines."""
    begun = time.monotonic()
    if not until():
        console.say(f"waiting {what}")
    while not until():
        if time.monotonic() - begun > _PATIENCE:
            raise RunFailed(f"waited {_PATIENCE / 60:.0f} minutes {what}")
        time.sleep(0.2)
