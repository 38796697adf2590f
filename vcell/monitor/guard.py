"""Restore the terminal, however the monitor ends.

The application runs in its own process. If it is asked to end, it restores the terminal itself. If
it is killed, the waiting process does so. If the waiting process is killed, the application is
ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import termios
import traceback
from collections.abc import Callable
from typing import Any

from vcell.errors import RunFailed

_PR_SET_PDEATHSIG = 1
# Modes that a full-screen program may have set: mouse reports, focus reports, bracketed paste, key
# protocol, synchronised output, the alternate screen, a hidden cursor, colours.
_RESTORE = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[<u"
    "\x1b[?2026l\x1b[?1049l\x1b[?25h\x1b[0m"
)


def guarded(show: Callable[[], int]) -> int:
    """Run `show` in another process and return its exit code, with the terminal restored.

    Raises
    ------
    RunFailed
        If the process was killed.
    """
    terminal = sys.stdin.fileno()
    saved = termios.tcgetattr(terminal)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_application(show))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _frame: _pass_on(child, n))
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        os.kill(os.getpid(), signal.SIGSTOP)  # Ctrl-Z: the shell waits for this process
        os.kill(child, signal.SIGCONT)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
    sys.stdout.write(_RESTORE)
    sys.stdout.flush()
    name = signal.Signals(os.WTERMSIG(status)).name
    raise RunFailed(f"the monitor was killed by {name}; the runs go on")


def _pass_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return


def _application(show: Callable[[], int]) -> int:
    """Run `show`, and return an exit code in any case."""
    if sys.platform == "linux":
        library: Any = ctypes.CDLL(None)
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    try:
        return show()
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
        return 1
