"""The number of cores that this process may use, which may be fewer than the machine has.

Batch systems and containers give a process some of the cores, by affinity or by a quota of CPU time
(cgroups); more threads than that wait for each other.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PROC, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores(most: int | None = None) -> int:
    """Return the number of cores that this process may use, from one to `most`."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = quota_of(_PROC, _CGROUPS)
    if quota is not None:
        allowed = min(allowed, max(1, round(quota)))
    return allowed if most is None else min(allowed, most)


def cpuinfo(field: str) -> str:
    """Return what Linux says of the first processor, such as its ``model name``; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def in_parts(work: Callable[[int, int], None], n: int) -> None:
    """Call ``work(first, last)`` on equal parts of n rows, in up to 8 threads."""
    threads = cores(8)
    if min(threads, n) <= 1:
        work(0, n)
        return
    with ThreadPoolExecutor(threads) as pool:
        share(pool, work, n, threads)


def share(pool: ThreadPoolExecutor, work: Callable[[int, int], None], n: int, parts: int) -> None:
    """Call ``work(first, last)`` on about `parts` equal parts of n rows, on a pool's threads."""
    step = max(-(-n // parts), 1)
    jobs = [pool.submit(work, first, min(first + step, n)) for first in range(0, n, step)]
    for job in jobs:
        job.result()


def quota_of(proc: Path, root: Path) -> float | None:
    """Return the CPU time that cgroups grant, in cores; None for no limit.

    Parameters
    ----------
    proc
        ``/proc/self/cgroup``: the groups of the process.
    root
        ``/sys/fs/cgroup``. Limits of the groups above also apply.
    """
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        top = root if not kinds else root / kinds
        folder = top / path.strip("/")
        # in a container the path may be the host's: then only the top exists
        above = [p for p in folder.parents if p.is_relative_to(top)]
        limits += [_limit(place) for place in (folder, *above)]
    found = [limit for limit in limits if limit is not None]
    return min(found, default=None)


def _limit(folder: Path) -> float | None:
    """Return the quota of one group: version 2 has one file, version 1 two."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        granted = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is not a limit
        return None
    return granted if granted > 0 else None
