"""Whether torch can use the GPUs that the driver reports, and if not, why and what to do.

The driver is queried first, without torch; torch is queried only before GPUs are used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcell.gpu.nvml import Device, Devices

_INSTALL = "install a build of torch for CUDA: https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class TorchSees:
    """What torch reports about CUDA.

    Attributes
    ----------
    version, cuda
        Versions of torch, and of the CUDA that it was built for; None for a build without.
    count
        Number of devices that it can use.
    complaint
        Its warning, if any.
    architectures
        Architectures that its kernels were compiled for: ``sm_80``, ``compute_90`` and the like.
    """

    version: str
    cuda: str | None
    count: int
    complaint: str = ""
    architectures: tuple[str, ...] = ()


def ask_torch() -> TorchSees:
    """Query torch, without initialising a GPU."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            complaint = str(caught[0].message) if caught and not count else ""
        except (RuntimeError, AssertionError, OSError) as error:
            count, complaint = 0, str(error)
    architectures = tuple(torch.cuda.get_arch_list()) if count else ()
    first = complaint.strip().splitlines()[0] if complaint.strip() else ""
    return TorchSees(str(torch.__version__), torch.version.cuda, count, first, architectures)


def checked(seen: Devices, torch: TorchSees | None = None) -> Devices:
    """Return the devices that torch can use too; `Devices.reason` says why not the others."""
    if not seen.devices:
        return seen
    torch = ask_torch() if torch is None else torch
    problem, remedy = disagreement(seen, torch)
    if not problem:
        return seen
    usable = min(torch.count, len(seen.devices))
    if any(not _compiled_for(device, torch.architectures) for device in seen.devices):
        usable = 0  # we cannot know which of them are usable
    return replace(seen, devices=seen.devices[:usable], reason=problem, remedy=remedy)


def disagreement(seen: Devices, torch: TorchSees) -> tuple[str, str]:
    """Return what torch lacks to use the driver's devices, and what to do; empty texts if nothing.

    Returns
    -------
    tuple of str
        The problem and the remedy.
    """
    n = len(seen.devices)
    cards = f"the driver ({seen.driver}) tells of {n} GPU{'s' if n > 1 else ''}"
    if torch.cuda is None:
        return f"{cards}, but torch {torch.version} is built without CUDA", _INSTALL
    if torch.count == 0:
        complaint = f": {torch.complaint}" if torch.complaint else ""
        needed = f"torch {torch.version} (CUDA {torch.cuda}) cannot use the driver{complaint}"
        return f"{cards}, but {needed}", f"update the driver, or {_INSTALL}"
    foreign = [d for d in seen.devices if not _compiled_for(d, torch.architectures)]
    if foreign:
        major, minor = foreign[0].capability
        has = f"{foreign[0].name} has compute capability {major}.{minor}"
        built = ", ".join(torch.architectures)
        return f"{has}, and torch {torch.version} has kernels for {built} only", _INSTALL
    if torch.count < n:
        return (
            f"{cards}, but torch can use {torch.count} of them",
            "nvidia-smi says which one is lost or in another mode",
        )
    return "", ""


def _compiled_for(device: Device, architectures: tuple[str, ...]) -> bool:
    """Whether kernels run on a device: of its generation but not newer, or PTX not newer."""
    if device.capability == (0, 0) or not architectures:
        return True  # unknown
    major, minor = device.capability
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = "".join(c for c in number if c.isdigit())  # sm_90a
        if not digits:
            continue
        its = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and its <= (major, minor):
            return True
        if kind == "sm" and its[0] == major and its[1] <= minor:
            return True
    return False
