"""Tell the user that kernels are being compiled, which happens once on every machine.

`vcell.kernels` knows when, and prints nothing; the command line prints, and does not load numba to
find out. Without a terminal, only compiling that takes more than a second is reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

#: Seconds of compiling from which it is told.
_NOTICED = 1.0

#: What tells it; None: nobody is told.
listener: Callable[[], None] | None = None
_since: float | None = None


def begins() -> None:
    """Note that a kernel was not found and is compiled now."""
    global listener, _since  # noqa: PLW0603 - one process, one first time
    now = time.monotonic()
    _since = now if _since is None else _since
    if listener is not None and (sys.stderr.isatty() or now - _since > _NOTICED):
        tell, listener = listener, None
        tell()
