"""Several processes through torch's elastic launch API; the only module that imports it.

vcell does not use its defaults: rendezvous is by c10d on a free port, there are no restarts, and
per-rank logs are in the run directory. The first cause of a failure is reported once, in plain
language.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.cores import cores
from vcell.errors import DiskFull, RunFailed, UserError
from vcell.launch.worker import failures_of
from vcell.signals import ENDING

if TYPE_CHECKING:
    from vcell.launch.plan import Plan
    from vcell.runs import Run

GRACE = 30  # seconds between a signal and SIGKILL, for the last checkpoint
# Signals of processes that end because of another: from torchrun, or NCCL's watchdog.
_CONSEQUENCES = (signal.SIGTERM, signal.SIGABRT)


def start(run: Run, plan: Plan) -> None:
    """Start this machine's processes and wait for them.

    Raises
    ------
    KeyboardInterrupt
        If a signal ended the run and its processes.
    RunFailed, UserError
        If a process failed; the message is that of the first one.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no warning per attempt to connect
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = {number: signal.getsignal(number) for number in ENDING}
    before = {n: handler for n, handler in before.items() if handler is not signal.SIG_IGN}  # nohup
    _silence("torch.distributed")
    _share_cores(plan)
    first_speaks = {0: Std.ALL} if plan.leads else {}
    others = dict.fromkeys(range(plan.procs), Std.ALL)
    config = LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.procs,
        run_id=plan.job or run.name,
        role="",  # with the template below: no prefix for rank 0
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
        signals_to_handle=",".join(number.name for number in before),
    )
    begun = time.time()
    command = ["-u", "-m", "vcell.launch.worker", str(run.path.resolve())]
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stop:
        console.say(f"{stop.sigval.name}: the processes have ended")
        raise KeyboardInterrupt from None
    except RendezvousError:
        if _has_met(run, begun):
            raise RunFailed(
                f"the machine at {plan.rdzv}, where all met, is gone or no longer answers",
                hint="go on from the last checkpoint with --resume, on the machines there are",
            ) from None
        raise RunFailed(
            f"the {plan.nodes} machines did not all connect to {plan.rdzv}",
            hint="the same command must start on all of them, and reach that port of that host",
        ) from None
    except ChildFailedError as error:
        raise _first_cause(run, error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_met(run: Run, begun: float) -> bool:
    """Whether processes of this launch have started working."""
    logs = run.path.glob("rank-*.jsonl")
    return bool(failures_of(run)) or any(log.stat().st_mtime > begun for log in logs)


def _silence(package: str) -> None:
    """Silence a package's loggers, as we report the same."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(package):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _share_cores(plan: Plan) -> None:
    """Give each process its share of the cores, as each would use all by default."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // plan.procs))


def _first_cause(run: Run, error: Any) -> UserError | RunFailed:
    """Find the first failure: a process that was killed, else the earliest with a reason."""
    signals = {r: -f.exitcode for r, f in sorted(error.failures.items()) if f.exitcode < 0}
    first = {rank: number for rank, number in signals.items() if number not in _CONSEQUENCES}
    failures = failures_of(run)
    if failures and not first:
        return as_error(min(failures, key=lambda failure: float(failure["time"])), run)
    ended_last = sorted((first or signals).items(), key=lambda item: item[1] == signal.SIGTERM)
    for rank, number in ended_last:
        why = " (out of memory?)" if number == signal.SIGKILL else ""
        name = signal.Signals(number).name
        return RunFailed(f"rank {rank} was killed by {name}{why}", hint=_logs(run))
    return RunFailed("a process failed without saying why", hint=_logs(run))


def as_error(failure: dict[str, Any], run: Run) -> UserError | RunFailed:
    """Convert the note of a failed process to the error that the command line shows."""
    if failure.get("full"):
        return DiskFull(failure["message"], hint=failure["hint"])
    if failure["user"]:
        return UserError(failure["message"], hint=failure["hint"])
    if failure["traceback"]:
        console.error(f"traceback of rank {failure['rank']}:\n{failure['traceback'].rstrip()}")
    return RunFailed(
        f"rank {failure['rank']} failed: {failure['message']}", hint=failure["hint"] or _logs(run)
    )


def _logs(run: Run) -> str:
    return f"the logs are in {run.path / 'logs'}"
