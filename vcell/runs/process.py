"""The identity of a process: its number, start time and machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def identity(pid: int | None = None) -> dict[str, Any]:
    """Describe a process, so that a later one with the same number is told apart."""
    pid = pid or os.getpid()
    return {"pid": pid, "started": _started(pid), "host": socket.gethostname(), "boot": _boot()}


def is_alive(process: dict[str, Any]) -> bool | None:
    """Return whether the described process is alive; None if unknown, as on another machine."""
    if process.get("host") != socket.gethostname():
        return None
    if process.get("boot") != _boot():
        return False  # this machine has been restarted
    pid = process.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, but alive
    except OverflowError:
        return False
    return _started(pid) == process.get("started") and not _is_zombie(pid)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []  # gone, or no /proc: rely on the number alone


def _started(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""  # clock ticks after boot


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
