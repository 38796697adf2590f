"""One process of a run: ``python -m vcell.launch.worker RUN_DIRECTORY``.

Started by the launcher, which passes its rank in the environment (RANK, WORLD_SIZE, LOCAL_RANK).
Its task is in run.json as ``worker``, a function ``package.module:name`` of the run. A failure is
written next to the logs for the launcher, which prints it once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from vcell import console
from vcell.errors import DiskFull, UserError, VcellError
from vcell.outputs.aside import FULL, room
from vcell.runs import Run

_FAILED = "error-{}-rank-{}.json"  # launch, rank
_PR_SET_PDEATHSIG = 1


def resolve(target: str) -> Callable[[Run], object]:
    """Import the function that a run names as its worker."""
    module, _, name = target.partition(":")
    function: Callable[[Run], object] = getattr(import_module(module), name)
    return function


def no_room(run: Run, error: BaseException) -> DiskFull | None:
    """Return the error for a run whose disk is full; None for other failures."""
    if isinstance(error, DiskFull):
        why = error.why
    elif isinstance(error, OSError) and error.errno in FULL:
        why = room(error)
    else:
        return None
    return DiskFull(
        f"{run.path} cannot be written: {why}",
        hint=f"make room, then --resume {run.name} goes on with it",
        why=why,
    )


def note_failure(run: Run, rank: int, error: BaseException) -> dict[str, object]:
    """Describe a failure of this rank for the launcher and for later readers."""
    known = isinstance(error, VcellError)
    failure: dict[str, object] = {
        "rank": rank,
        "time": time.time(),
        "user": isinstance(error, UserError),
        "full": isinstance(error, DiskFull),
        "message": str(error) if known else f"{type(error).__name__}: {error}".rstrip(": "),
        "hint": getattr(error, "hint", None),
        "traceback": None if known else "".join(traceback.format_exception(error)),
    }
    name = _FAILED.format(run.meta.get("launches", 1), rank)
    with suppress(DiskFull):  # it is reported anyway
        run.write_log(name, json.dumps(failure, indent=1))
    return failure


def failures_of(run: Run) -> list[dict[str, Any]]:
    """Return the failures of the current launch's ranks, not those of earlier launches."""
    run.refresh()
    names = (run.path / "logs").glob(_FAILED.format(run.meta.get("launches", 1), "*"))
    return [json.loads(path.read_text()) for path in names]


def _end_with_the_launcher() -> None:
    """End this process when its launcher is killed, so that no orphan trains on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def main() -> None:
    """Run this rank's part and exit at once with 0, or with 1 after recording the reason.

    The interpreter is not shut down: torch's threads sometimes abort the process then (``terminate
    called without an active exception``, one run in four on a busy machine), and the launcher would
    report a finished run as failed.
    """
    code = _work()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work() -> int:
    """Run this rank's part and return its exit code."""
    _end_with_the_launcher()
    run = Run.open(Path(sys.argv[1]))
    rank = int(os.environ.get("RANK", "0"))
    shown = run.meta.get("console", {})
    console.settings.json = bool(shown.get("json"))
    console.settings.verbosity = int(shown.get("verbosity", 0)) if rank == 0 else console.QUIET
    try:
        with console.copied_to(run.console_log()) if rank == 0 else nullcontext():
            resolve(run.meta["worker"])(run)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:  # noqa: BLE001 - reported by the launcher
        if isinstance(error, SystemExit) and not error.code:
            return 0
        failure = note_failure(run, rank, no_room(run, error) or error)
        if rank:  # to its own log; the user sees rank 0's output, and is told once
            print(failure["traceback"] or failure["message"], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
