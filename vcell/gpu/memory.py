"""The memory of a device: of the GPU's tensors, or of this process on a CPU."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Start to measure the peak memory again."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory, so that using it again counts
    with suppress(OSError):
        _RESET.write_text("5")


def memory_in_use(device: torch.device) -> int | None:
    """Return the bytes in use; None if they cannot be read."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else _status("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use since `reset_peak`; without Linux, since the process began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak


def available_memory(device: torch.device) -> int:
    """Return the bytes that are still free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = _lines(Path("/proc/meminfo"))
    return next((int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line), 8 << 30)


def _status(name: str) -> int | None:
    return next(
        (int(line.split()[1]) * 1024 for line in _lines(_STATUS) if line.startswith(name)), None
    )


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text().splitlines()
    except OSError:
        return
