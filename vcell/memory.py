"""How much memory may be used: what the machine has free, and how much of it a pass may hold."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def free() -> int:
    """Return the bytes that this process could still use; 4 GiB where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30


def budget(most: int) -> int:
    """Return how many bytes a pass may hold: `most`, but no more than a quarter of what is free."""
    return min(most, free() // 4)
