"""The memory of a device: of the GPU's tensors, or of this process on a CPU."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

import torch

from vcell import memory
from vcell.gpu.accelerator import accelerator

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
        return accelerator(device).peak_memory()
    peak = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak


def available_memory(device: torch.device) -> int:
    """Return the bytes that are still free."""
    return accelerator(device).memory()[0] if device.type == "cuda" else memory.free()


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
