"""The compute device behind one small interface: a CPU or CUDA, or a fake one in tests.

    it = accelerator(device)
    it.bf16, it.memory(), it.peak_memory(), it.synchronise(), it.mark(), it.random_state() ...

All questions about the device and its memory are answered here and nowhere else. So what differs on
a GPU is in this module, and can be replaced (`KINDS`) on machines without one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vcell.gpu.published import Sheet


class Mark(Protocol):
    """A place in the device's queue of work."""

    def done(self) -> bool:
        """Whether the device has come to it; does not wait."""

    def seconds_after(self, earlier: Any) -> float:
        """Seconds that the device took from an earlier mark, both of them done and timed."""


class _Now:
    """On a CPU what was asked for has been done."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def done(self) -> bool:
        return True

    def seconds_after(self, earlier: _Now) -> float:
        return self._time - earlier._time


class Accelerator:
    """The CPU, and the interface of all."""

    kind = "cpu"
    has_queue = False  # whether work is done later than it is asked for

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def name(self) -> str:
        """What to call it."""
        return "CPU"

    @property
    def uuid(self) -> str:
        """What the driver knows it by; nothing where there is no driver."""
        return ""

    @property
    def bf16(self) -> bool:
        """Whether bf16 is computed in hardware, and worth being the default."""
        return False

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA's compute capability, (0, 0) of what is not a GPU."""
        return 0, 0

    def memory(self) -> tuple[int, int]:
        """Return bytes free and in all; (0, 0) where nobody says."""
        return 0, 0

    def peak_memory(self) -> int:
        """Return the most bytes that tensors took since the last `forget_peak`."""
        return 0

    def forget_peak(self) -> None:
        """Begin to look for the peak anew."""

    def limit_memory(self, share: float) -> None:
        """Take no more than a share of the memory."""

    def synchronise(self) -> None:
        """Wait until all is done."""

    def empty_cache(self) -> None:
        """Give back memory that is kept for later."""

    def mark(self, *, timed: bool = False) -> Mark:
        """Put a mark into the queue, behind everything asked for so far."""
        del timed
        return _Now()

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Allocate memory that the device copies from by itself."""
        raise UserError("page-locked memory needs a CUDA device", hint="leave out Output(pin=True)")

    def send(self, tensor: Tensor) -> Tensor:
        """Copy to the device; from page-locked memory the copy may happen later."""
        return tensor.to(self.device, non_blocking=True)

    def random_state(self) -> Tensor | None:
        """Return the state of the device's own generator, if it has one."""
        return None

    def set_random_state(self, state: Tensor) -> None:
        """Set it, where there is one."""


class Cuda(Accelerator):
    """One GPU through torch.cuda."""

    kind = "cuda"
    has_queue = True

    def __init__(self, device: torch.device) -> None:
        here = torch.cuda.current_device() if device.index is None else device.index
        super().__init__(torch.device("cuda", here))

    @property
    def name(self) -> str:
        """As the driver calls it."""
        return str(torch.cuda.get_device_name(self.device))

    @property
    def uuid(self) -> str:
        """What the driver knows it by, without ``GPU-``."""
        return str(torch.cuda.get_device_properties(self.device).uuid)

    @property
    def bf16(self) -> bool:
        """From Ampere on."""
        return self.capability >= (8, 0)

    @property
    def capability(self) -> tuple[int, int]:
        """As (9, 0) of an H100."""
        return torch.cuda.get_device_capability(self.device)

    def memory(self) -> tuple[int, int]:
        """Return bytes free and in all."""
        return torch.cuda.mem_get_info(self.device)

    def peak_memory(self) -> int:
        """Return the most bytes that tensors took since the last `forget_peak`."""
        return torch.cuda.max_memory_allocated(self.device)

    def forget_peak(self) -> None:
        """Begin to look for the peak anew."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def limit_memory(self, share: float) -> None:
        """Take no more than a share of the memory."""
        torch.cuda.set_per_process_memory_fraction(share, self.device)

    def synchronise(self) -> None:
        """Wait until all is done."""
        torch.cuda.synchronize(self.device)

    def empty_cache(self) -> None:
        """Give back memory that is kept for later."""
        torch.cuda.empty_cache()

    def mark(self, *, timed: bool = False) -> Mark:
        """Record an event on the device's present stream."""
        event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return _Event(event)

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Allocate memory that the device copies from by itself."""
        array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return array

    def random_state(self) -> Tensor | None:
        """Return the state of the generator."""
        return torch.cuda.get_rng_state(self.device)

    def set_random_state(self, state: Tensor) -> None:
        """Set the generator."""
        torch.cuda.set_rng_state(state, self.device)


class _Event:
    """An event of CUDA."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def done(self) -> bool:
        return bool(self._event.query())

    def seconds_after(self, earlier: _Event) -> float:
        return float(earlier._event.elapsed_time(self._event)) / 1000


#: What a kind of device is asked through. Tests put a false one here.
KINDS: dict[str, Callable[[torch.device], Accelerator]] = {"cpu": Accelerator, "cuda": Cuda}


@contextmanager
def standing_in(kind: Callable[[torch.device], Accelerator]) -> Iterator[None]:
    """Have something else answer for CUDA devices, where there is none to ask."""
    before = KINDS["cuda"]
    KINDS["cuda"] = kind
    try:
        yield
    finally:
        KINDS["cuda"] = before


def accelerator(device: torch.device | str) -> Accelerator:
    """Return what answers for a device; ``cuda`` without a number is this thread's present one."""
    device = torch.device(device)
    return KINDS.get(device.type, Accelerator)(device)


class OnPaper(Accelerator):
    """A GPU that is not here, of which the data sheet is known."""

    kind, has_queue = "cuda", True

    def __init__(self, device: torch.device, card: Sheet) -> None:
        super().__init__(device)
        self.card = card

    @property
    def name(self) -> str:
        """The card's."""
        return self.card.name

    @property
    def bf16(self) -> bool:
        """Whether it multiplies in bf16."""
        return self.card.capability >= (8, 0)

    @property
    def capability(self) -> tuple[int, int]:
        """Of the sheet."""
        return self.card.capability
