"""One interface for the compute device: a CPU, CUDA, or a fake device in tests.

    it = accelerator(device)
    it.bf16, it.memory(), it.peak_memory(), it.synchronise(), it.mark(), it.random_state() ...

All queries about the device and its memory are in this module only. So everything that differs on a
GPU is here, and can be replaced (`KINDS`) on machines without one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from vcell.cores import cpuinfo
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vcell.gpu.published import Sheet


class Mark(Protocol):
    """A position in the device's queue of work."""

    def done(self) -> bool:
        """Whether the device has reached the mark; does not wait."""

    def seconds_after(self, earlier: Any) -> float:
        """Return the seconds since an earlier mark; both must be done and timed."""


class _Now:
    """A mark on a CPU, which is reached at once."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def done(self) -> bool:
        return True

    def seconds_after(self, earlier: _Now) -> float:
        return self._time - earlier._time


class Accelerator:
    """The CPU, and the base class of all devices."""

    kind = "cpu"
    has_queue = False  # whether work is asynchronous

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def name(self) -> str:
        """Name of the device."""
        return cpuinfo("model name") or "CPU"

    @property
    def uuid(self) -> str:
        """The driver's identifier of the device; "" without a driver."""
        return ""

    @property
    def bf16(self) -> bool:
        """Whether bf16 is computed in hardware, and should be the default."""
        return False

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA's compute capability; (0, 0) without a GPU."""
        return 0, 0

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes; (0, 0) if unknown."""
        return 0, 0

    def peak_memory(self) -> int:
        """Return the peak bytes of tensors so far."""
        return 0

    def limit_memory(self, share: float) -> None:
        """Limit this process to a share of the memory."""

    def synchronise(self) -> None:
        """Wait until all work is done."""

    def empty_cache(self) -> None:
        """Release cached memory."""

    def mark(self, *, timed: bool = False) -> Mark:
        """Add a mark to the queue, after all work submitted so far."""
        del timed
        return _Now()

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Allocate page-locked memory."""
        raise UserError("page-locked memory needs a CUDA device", hint="leave out Output(pin=True)")

    def send(self, tensor: Tensor) -> Tensor:
        """Copy to the device; from page-locked memory the copy may be asynchronous."""
        return tensor.to(self.device, non_blocking=True)

    def random_state(self) -> Tensor | None:
        """Return the state of the device's own generator, if it has one."""
        return None

    def set_random_state(self, state: Tensor) -> None:
        """Set the state of the device's own generator, if it has one."""


class Cuda(Accelerator):
    """One GPU through torch.cuda."""

    kind = "cuda"
    has_queue = True

    def __init__(self, device: torch.device) -> None:
        here = torch.cuda.current_device() if device.index is None else device.index
        super().__init__(torch.device("cuda", here))

    @property
    def name(self) -> str:
        """The driver's name of the GPU."""
        return str(torch.cuda.get_device_name(self.device))

    @property
    def uuid(self) -> str:
        """The driver's identifier, without ``GPU-``."""
        return str(torch.cuda.get_device_properties(self.device).uuid)

    @property
    def bf16(self) -> bool:
        """True from Ampere on."""
        return self.capability >= (8, 0)

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, such as (9, 0) for an H100."""
        return torch.cuda.get_device_capability(self.device)

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        return torch.cuda.mem_get_info(self.device)

    def peak_memory(self) -> int:
        """Return the peak bytes of tensors so far."""
        return torch.cuda.max_memory_allocated(self.device)

    def limit_memory(self, share: float) -> None:
        """Limit this process to a share of the memory."""
        torch.cuda.set_per_process_memory_fraction(share, self.device)

    def synchronise(self) -> None:
        """Wait until all work is done."""
        torch.cuda.synchronize(self.device)

    def empty_cache(self) -> None:
        """Release cached memory."""
        torch.cuda.empty_cache()

    def mark(self, *, timed: bool = False) -> Mark:
        """Record an event on the device's current stream."""
        event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return _Event(event)

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Allocate page-locked memory."""
        array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return array

    def random_state(self) -> Tensor | None:
        """Return the state of the generator."""
        return torch.cuda.get_rng_state(self.device)

    def set_random_state(self, state: Tensor) -> None:
        """Set the generator."""
        torch.cuda.set_rng_state(state, self.device)


class _Event:
    """A CUDA event."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def done(self) -> bool:
        return bool(self._event.query())

    def seconds_after(self, earlier: _Event) -> float:
        return float(earlier._event.elapsed_time(self._event)) / 1000


#: The class for each kind of device. Tests replace it.
KINDS: dict[str, Callable[[torch.device], Accelerator]] = {"cpu": Accelerator, "cuda": Cuda}


@contextmanager
def standing_in(kind: Callable[[torch.device], Accelerator]) -> Iterator[None]:
    """Replace the class for CUDA devices inside the block."""
    before = KINDS["cuda"]
    KINDS["cuda"] = kind
    try:
        yield
    finally:
        KINDS["cuda"] = before


def chosen_device(name: str) -> torch.device:
    """Return the device of a command with one process that is asked for auto, cpu or cuda."""
    have = torch.cuda.is_available()
    if name == "cuda" and not have:
        raise UserError("a GPU was requested, but torch finds none", hint="--device cpu")
    return torch.device("cuda" if have and name != "cpu" else "cpu")


def accelerator(device: torch.device | str) -> Accelerator:
    """Return the accelerator of a device; ``cuda`` alone is this thread's current device."""
    device = torch.device(device)
    return KINDS.get(device.type, Accelerator)(device)


class OnPaper(Accelerator):
    """A GPU that is not present, described by its data sheet."""

    kind, has_queue = "cuda", True

    def __init__(self, device: torch.device, card: Sheet) -> None:
        super().__init__(device)
        self.card = card

    @property
    def name(self) -> str:
        """Name of the card."""
        return self.card.name

    @property
    def bf16(self) -> bool:
        """Whether it has bf16 products."""
        return self.card.capability >= (8, 0)

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability on the sheet."""
        return self.card.capability
