"""Several processes through torch's elastic launch API; the only module that imports it.

Its own defaults do not suit us: rendezvous by c10d on a free port, no restarts, and per-rank logs
in the run directory. The first cause of a failure is told once, in our words.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.errors import RunFailed, UserError
from vcell.launch.worker import FAILED

if TYPE_CHECKING:
    from vcell.launch.plan import Plan
    from vcell.runs import Run

GRACE = 30  # seconds between a signal and SIGKILL, for the last checkpoint


def start(run: Run, plan: Plan) -> None:
    """Start this machine's processes and wait for them.

    Raises
    ------
    KeyboardInterrupt
        A signal asked the run to end, and its processes have ended.
    RunFailed, UserError
        A process failed; the message is that of the first one.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence("torch.distributed")
    _share_cores(plan)
    first_speaks = {0: Std.ALL} if plan.leads else {}
    others = dict.fromkeys(range(plan.procs), Std.ALL)
    config = LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.procs,
        run_id=plan.job or run.name,
        role="",  # with the template below: rank 0 speaks without a prefix
        rdzv_backend="c10d",
        rdzv_endpoint=plan.rdzv,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(
            log_dir=str(run.path / "logs"),
            redirects=others,
            tee=first_speaks,
            local_ranks_filter={0},
        ),
        log_line_prefix_template="${role_name}",
        shutdown_timeout=GRACE,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP",
    )
    command = ["-u", "-m", "vcell.launch.worker", str(run.path.resolve())]
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stop:
        console.say(f"{stop.sigval.name}: the processes have ended")
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        raise _first_cause(run, error) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)


def _silence(package: str) -> None:
    """Keep a package's loggers from telling what we tell."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(package):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _share_cores(plan: Plan) -> None:
    """Give each process its share of the cores: by default every one would take them all."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // plan.procs))


def _first_cause(run: Run, error: Any) -> UserError | RunFailed:
    """Find what failed first: a process that was killed, else the earliest that said why."""
    for rank, failure in sorted(error.failures.items()):
        sent = -failure.exitcode
        if sent > 0 and sent != signal.SIGTERM:  # SIGTERM is how the others were ended
            name = signal.Signals(sent).name
            why = " (out of memory?)" if sent == signal.SIGKILL else ""
            return RunFailed(f"rank {rank} was killed by {name}{why}", hint=_logs(run))
    notes = [_read(path) for path in (run.path / "logs").glob(FAILED.format("*"))]
    told = [note for note in notes if note is not None]
    if not told:
        return RunFailed("a process failed without saying why", hint=_logs(run))
    return as_error(min(told, key=lambda failure: failure["time"]), run)


def as_error(failure: dict[str, Any], run: Run) -> UserError | RunFailed:
    """Turn the note of a failed process into the error that the command line shows."""
    if failure["user"]:
        return UserError(failure["message"], hint=failure["hint"])
    if failure["traceback"]:
        console.error(f"traceback of rank {failure['rank']}:\n{failure['traceback'].rstrip()}")
    return RunFailed(
        f"rank {failure['rank']} failed: {failure['message']}", hint=failure["hint"] or _logs(run)
    )


def _logs(run: Run) -> str:
    return f"the logs are in {run.path / 'logs'}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None
