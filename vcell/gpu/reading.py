"""The current state of a GPU: watts, clocks, temperature, memory, and what slows it down.

    with open_card(uuid) as card:
        card.read().as_dict()

Values that a card or driver does not report are left out. Reading takes about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from vcell.gpu.nvml import session

T = TypeVar("T")

#: Meaning of NVML's bits of clocks' event reasons (throttle reasons before R535).
THROTTLE = {
    0x1: "idle",
    0x2: "locked clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}


@dataclass(frozen=True)
class Reading:
    """The state of a GPU at one moment; None: not reported."""

    watts: float | None = None
    cap_watts: float | None = None  # as set
    enforced_cap_watts: float | None = None  # the smallest of all limits
    mhz: int | None = None  # of the multiprocessors
    celsius: int | None = None
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    throttle: tuple[str, ...] | None = None
    energy_j: float | None = None  # since the driver was loaded
    utilisation: int | None = None  # percent of the time in which a kernel ran

    def as_dict(self) -> dict[str, Any]:
        """Return the known values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Card:
    """A GPU, or a MIG instance, which reports only its own memory and load."""

    def __init__(self, nvml: Any, handle: Any, *, is_instance: bool) -> None:
        self._nvml, self._handle, self._is_instance = nvml, handle, is_instance

    def read(self) -> Reading:
        """Query the driver."""
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo)
        load = self._ask(nvml.nvmlDeviceGetUtilizationRates)
        own: dict[str, Any] = {
            "memory_bytes": None if memory is None else int(memory.used),
            "memory_total_bytes": None if memory is None else int(memory.total),
            "utilisation": None if load is None else int(load.gpu),
        }
        if self._is_instance:
            return Reading(**own)
        thousandths = {
            "watts": nvml.nvmlDeviceGetPowerUsage,
            "cap_watts": nvml.nvmlDeviceGetPowerManagementLimit,
            "enforced_cap_watts": nvml.nvmlDeviceGetEnforcedPowerLimit,
            "energy_j": nvml.nvmlDeviceGetTotalEnergyConsumption,
        }
        for name, ask in thousandths.items():
            found = self._ask(ask)
            own[name] = None if found is None else found / 1000
        own["mhz"] = self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)
        own["celsius"] = self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
        own["throttle"] = self._throttle()
        return Reading(**own)

    def _throttle(self) -> tuple[str, ...] | None:
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksEventReasons)
        if bits is None:
            bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        if bits is None:
            return None
        return tuple(name for bit, name in THROTTLE.items() if bits & bit)

    def _ask(self, question: Callable[..., T], *more: Any) -> T | None:
        try:
            return question(self._handle, *more)
        except (self._nvml.NVMLError, UnicodeDecodeError):
            return None


@contextmanager
def open_card(uuid: str) -> Iterator[Card]:
    """Yield the GPU or MIG instance with a uuid, with or without ``GPU-`` or ``MIG-``.

    Raises
    ------
    LookupError
        If no driver answers, or it knows no such card.
    """
    try:
        import pynvml
    except ImportError as error:
        raise LookupError(str(error)) from None
    try:
        with session() as nvml:
            yield _found(nvml, bare(uuid))
    except pynvml.NVMLError as error:
        raise LookupError(f"the NVIDIA driver does not answer: {error}") from None


def _found(nvml: Any, uuid: str) -> Card:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if bare(nvml.nvmlDeviceGetUUID(handle)) == uuid:
                return Card(nvml, handle, is_instance=False)
        except (nvml.NVMLError, UnicodeDecodeError):
            continue
        for number in range(_most_instances(nvml, handle)):
            try:
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                if bare(nvml.nvmlDeviceGetUUID(instance)) == uuid:
                    return Card(nvml, instance, is_instance=True)
            except (nvml.NVMLError, UnicodeDecodeError):
                continue
    raise LookupError(f"the NVIDIA driver has no card {uuid}")


def _most_instances(nvml: Any, handle: Any) -> int:
    try:
        on = nvml.nvmlDeviceGetMigMode(handle)[0]
        return int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) if on else 0
    except nvml.NVMLError:
        return 0


def bare(uuid: str) -> str:
    """Return a uuid without the driver's prefix."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-")
