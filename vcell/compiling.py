"""Report that kernels are being compiled, which happens once per machine.

`vcell.kernels` notices it but does not print; the command line prints without loading numba.
Without a terminal, only compiling that takes more than a second is reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

#: Seconds of compiling after which it is reported.
_NOTICED = 1.0

#: Reports it; None: no report.
listener: Callable[[], None] | None = None
_since: float | None = None


def begins() -> None:
    """Note that a kernel is being compiled now."""
    global listener, _since  # noqa: PLW0603 - state of the process
    now = time.monotonic()
    _since = now if _since is None else _since
    if listener is not None and (sys.stderr.isatty() or now - _since > _NOTICED):
        tell, listener = listener, None
        tell()
