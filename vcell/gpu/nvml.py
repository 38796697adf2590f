"""Ask the NVIDIA driver what devices there are, without importing torch.

Everything here only reads. A machine without a driver simply has no devices; why is in `Devices`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One GPU as the driver reports it."""

    index: int
    name: str
    memory: int  # bytes
    uuid: str


@dataclass(frozen=True)
class Devices:
    """The GPUs that this process may use, and why there are none where there are none."""

    devices: tuple[Device, ...]
    reason: str = ""
    driver: str = ""


def devices() -> Devices:
    """List the GPUs, honouring CUDA_VISIBLE_DEVICES."""
    try:
        import pynvml
    except ImportError:
        return Devices((), "nvidia-ml-py is not installed (pip install nvidia-ml-py)")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Devices((), f"no NVIDIA driver answers ({error})")
    try:
        count = pynvml.nvmlDeviceGetCount()
        found = [_device(pynvml.nvmlDeviceGetHandleByIndex(i), i) for i in range(count)]
        driver = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError as error:
        return Devices((), f"the NVIDIA driver does not answer properly ({error})")
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    kept = found if visible is None else _visible(found, visible)
    reason = "" if kept else f"CUDA_VISIBLE_DEVICES={visible!r} hides all {len(found)} GPUs"
    return Devices(tuple(kept), reason, driver)


def _device(handle: object, index: int) -> Device:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
    return Device(index, str(name), int(memory), str(uuid))


def _visible(found: list[Device], visible: str) -> list[Device]:
    """Follow CUDA's rule: indices or UUID prefixes, up to the first that names no device."""
    kept = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        match = [
            d
            for d in found
            if word == str(d.index) or (word[:3] == "GPU" and d.uuid.startswith(word))
        ]
        if not match:
            break
        kept.append(match[0])
    return kept
