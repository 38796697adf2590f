"""Available memory, and the share of it that a pass may use."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def free() -> int:
    """Return the bytes that are available to this process; 4 GiB if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30


def budget(most: int) -> int:
    """Return the bytes that a pass may use: `most`, but at most a quarter of what is free."""
    return min(most, free() // 4)
