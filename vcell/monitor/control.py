"""Send requests to a running training, through its control files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.monitor.overview import Overview
    from vcell.runs import Run


def ask(run: Run, overview: Overview, what: str) -> str:
    """Ask a run to ``stop``, write a ``checkpoint`` or ``pause``; a second ``pause`` resumes it.

    Returns
    -------
    str
        What was done, in one line.

    Raises
    ------
    UserError
        If it is not running, or its folder is not writable.
    """
    if not overview.is_live:
        raise UserError(f"{overview.short} is {overview.status}: it takes no requests")
    try:
        if what == "pause" and "pause" in run.requests():
            run.clear("pause")
            return f"{overview.short} goes on"
        run.request(what)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{run.path / 'control'} cannot be written to: {reason}") from None
    said = {
        "pause": "was asked to pause after its step, with a checkpoint written (p again: go on)",
        "checkpoint": "was asked for a checkpoint after its step",
        "stop": "was asked to stop after its step, with a checkpoint written",
    }
    return f"{overview.short} {said[what]}"


def may_ask(run: Run) -> bool:
    """Return whether this user may write the run's control files."""
    folder = run.path / "control"
    return os.access(folder if folder.is_dir() else run.path, os.W_OK)
