"""List devices through the NVIDIA driver, without importing torch.

Everything here only reads. A machine without a driver has no devices; `Devices` holds the reason. A
value that a card does not report is unknown, and hides neither the card nor other values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """One GPU, or one MIG instance of a GPU, as the driver reports it."""

    index: int  # the driver's number of the card, which may differ from CUDA's
    name: str
    memory: int  # bytes; 0 if unknown
    uuid: str
    capability: tuple[int, int] = (0, 0)  # (9, 0) for an H100; (0, 0) if unknown
    parent: str = ""  # for a MIG instance: the uuid of its card


@dataclass(frozen=True)
class Devices:
    """The GPUs that this process may use, and the reason if there are none."""

    devices: tuple[Device, ...]
    reason: str = ""
    driver: str = ""
    problems: tuple[str, ...] = ()  # cards that do not answer, and the like
    remedy: str = ""  # what to do about `reason`


@contextmanager
def session() -> Iterator[Any]:
    """Load the driver's library, yield pynvml, and unload the library.

    Raises
    ------
    pynvml.NVMLError, ImportError
        If there is no driver, or no pynvml.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def devices() -> Devices:
    """List the GPUs, honouring CUDA_VISIBLE_DEVICES."""
    try:
        import pynvml
    except ImportError:
        return Devices((), "nvidia-ml-py is not installed", remedy="pip install nvidia-ml-py")
    try:
        with session() as nvml:
            found, problems = _cards(nvml)
            driver = _or(nvml, nvml.nvmlSystemGetDriverVersion, "unknown")
    except pynvml.NVMLError as error:
        return Devices((), *_no_driver(pynvml, error))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        kept, reason = _without_instances(found), ""
        if not kept:
            reason = "; ".join(problems) or "the driver tells of no GPU"
    else:
        kept, problem = _visible(found, visible)
        problems += [problem] if problem else []
        reason = "" if kept else (problem or f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs")
    return Devices(tuple(kept), reason, driver, tuple(problems))


def _no_driver(nvml: Any, error: Any) -> tuple[str, str, tuple[str, ...], str]:
    """Return reason, driver, problems and remedy for a driver that does not answer."""
    if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        why = "the NVIDIA driver was updated under the running kernel"
        return f"{why} ({error})", "", (), "restart the machine, or reload the driver's modules"
    if error.value == nvml.NVML_ERROR_NO_PERMISSION:
        why = "this user may not query the NVIDIA driver"
        return f"{why} ({error})", "", (), "ask for access to /dev/nvidia*"
    return f"no NVIDIA driver answers ({error})", "", (), ""


def _cards(nvml: Any) -> tuple[list[Device], list[str]]:
    """Return all cards, each followed by its MIG instances, and problems with others."""
    found: list[Device] = []
    problems: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            card = _device(nvml, handle, index)
        except (nvml.NVMLError, UnicodeDecodeError) as error:
            problems.append(f"GPU {index} does not answer ({error})")
            continue
        found += [card, *_instances(nvml, handle, card)]
    return found, problems


def _device(nvml: Any, handle: Any, index: int, parent: Device | None = None) -> Device:
    """Describe a card or an instance; it must at least have a uuid."""
    uuid = str(nvml.nvmlDeviceGetUUID(handle))
    info = _or(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle), None)
    nothing = (0, 0) if parent is None else parent.capability
    return Device(
        index,
        str(_or(nvml, lambda: nvml.nvmlDeviceGetName(handle), "a GPU without a name")),
        0 if info is None else int(info.total),
        uuid,
        _or(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle), nothing),
        "" if parent is None else parent.uuid,
    )


def _instances(nvml: Any, handle: Any, card: Device) -> list[Device]:
    """Return the MIG instances of a card."""
    mode = _or(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0)
    most = _or(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle), 0) if mode else 0
    found = []
    for number in range(most):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            found.append(_device(nvml, instance, card.index, card))
        except (nvml.NVMLError, UnicodeDecodeError):
            continue  # no instance with that number
    return found


def _or(nvml: Any, ask: Callable[[], T], otherwise: T) -> T:
    """Return an answer, or `otherwise` if the driver or the card has none."""
    try:
        return ask()
    except (nvml.NVMLError, UnicodeDecodeError):  # pynvml's decoding is strict
        return otherwise


def _without_instances(found: list[Device]) -> list[Device]:
    """Return CUDA's default devices: for a card in MIG mode its first instance."""
    kept = []
    for device in found:
        if device.parent:
            continue
        of_it = [other for other in found if other.parent == device.uuid]
        kept.append(of_it[0] if of_it else device)
    return [d for d in kept if d.parent][:1] or kept  # with an instance, CUDA uses nothing else


def _visible(found: list[Device], visible: str) -> tuple[list[Device], str]:
    """Apply CUDA_VISIBLE_DEVICES: numbers or prefixes of uuids, up to the first invalid one.

    A device that is named twice leaves none, as in CUDA. A card in MIG mode means its first
    instance. Also returns a problem with the list, or "".
    """
    whole = [device for device in found if not device.parent]
    by_number = {str(device.index): device for device in whole}
    kept: list[Device] = []
    for word in (part.strip() for part in visible.split(",")):
        device = by_number.get(word)
        if device is None and word.startswith("MIG-GPU-"):  # as drivers before 470 wrote it
            card = word.removeprefix("MIG-").partition("/")[0]
            device = next((d for d in found if d.parent == card), None)
        elif device is None and word[:4] in ("GPU-", "MIG-"):
            match = [d for d in found if d.uuid.startswith(word)]
            device = match[0] if len(match) == 1 else None
        if device is None:
            if word and not (word == "-1" or word.lower() in ("none", "nodevfiles", "void")):
                return kept, f"CUDA_VISIBLE_DEVICES={visible!r}: there is no GPU {word}"
            break
        of_it = [other for other in found if other.parent == device.uuid]
        device = of_it[0] if of_it else device
        if device in kept:
            return [], f"CUDA_VISIBLE_DEVICES={visible!r} names a GPU twice: CUDA then uses none"
        kept.append(device)
    if len(kept) > 1 and any(device.parent for device in kept):
        return kept[:1], "CUDA uses one MIG instance at a time, here the first"
    return kept, ""
