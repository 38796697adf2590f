"""The settings of a card, each verified by reading back where NVML can.

NVML cannot report locked clocks, so they are verified by the clock under load, and their earlier
state is known only from vcell's own journal. Units: watts, megahertz, degrees Celsius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from vcell.errors import RunFailed, UserError

Lock = tuple[int, int]


@dataclass(frozen=True)
class CardSettings:
    """Settings of a card; None: unchanged (a lock of (0, 0) means no lock)."""

    power_limit: float | None = None
    clocks: Lock | None = None
    memory_clocks: Lock | None = None
    temp_limit: int | None = None

    def names(self) -> list[str]:
        """Return the names of the settings that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, values: dict[str, Any]) -> CardSettings:
        """Make settings from `plain`."""
        known = {field.name for field in fields(cls)}
        locks = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{k: v for k, v in {**values, **locks}.items() if k in known})

    def words(self) -> list[str]:
        """Describe each setting."""
        found = []
        if self.power_limit is not None:
            found.append(f"power limit {self.power_limit:g} W")
        for name, lock in (("clock", self.clocks), ("memory clock", self.memory_clocks)):
            if lock is not None:
                found.append(f"{name} locked to {lock[1]} MHz" if lock[1] else f"{name} not locked")
        if self.temp_limit is not None:
            found.append(f"temperature limit {self.temp_limit} degrees")
        return found


@dataclass(frozen=True)
class Limits:
    """Limits of a card's settings; None if unknown or not available."""

    power: tuple[float, float] | None
    default_power: float | None
    clocks: tuple[int, ...]  # descending
    memory_clocks: tuple[int, ...]


class Control:
    """One card: its limits, current settings and setters. The only code that changes a card.

    Parameters
    ----------
    nvml, handle
        From `vcell.gpu.nvml.session`.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self.uuid = str(nvml.nvmlDeviceGetUUID(handle))
        self.name = str(self._ask(nvml.nvmlDeviceGetName) or "a GPU without a name")

    def limits(self) -> Limits:
        """Query the limits of the card."""
        nvml = self._nvml
        power = self._ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints)
        default = self._ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit)
        memory = self._ask(nvml.nvmlDeviceGetSupportedMemoryClocks) or []
        clocks = self._ask(nvml.nvmlDeviceGetSupportedGraphicsClocks, memory[0]) if memory else []
        return Limits(
            None if power is None else (power[0] / 1000, power[1] / 1000),
            None if default is None else default / 1000,
            tuple(sorted(map(int, clocks or ()), reverse=True)),
            tuple(sorted(map(int, memory), reverse=True)),
        )

    def current(self) -> CardSettings:
        """Return the current settings, without locks, which cannot be queried."""
        nvml = self._nvml
        power = self._ask(nvml.nvmlDeviceGetPowerManagementLimit)
        hot = self._ask(
            nvml.nvmlDeviceGetTemperatureThreshold, nvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX
        )
        return CardSettings(None if power is None else power / 1000, temp_limit=hot)

    def users(self) -> list[int]:
        """Return the processes that compute on the card."""
        found = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses) or []
        return [int(process.pid) for process in found]

    def in_instances(self) -> bool:
        """Return whether the card is split into MIG instances."""
        mode = self._ask(self._nvml.nvmlDeviceGetMigMode)
        return bool(mode and mode[0])

    def check(self, requested: CardSettings) -> None:
        """Raise for settings that the card does not allow, before anything is changed."""
        limits = self.limits()
        if requested.power_limit is not None:
            if limits.power is None:
                raise UserError(f"{self.name} has no power limit that can be set")
            low, high = limits.power
            if not low <= requested.power_limit <= high:
                raise UserError(
                    f"{requested.power_limit:g} W is outside what {self.name} allows",
                    hint=f"choose between {low:g} and {high:g} W",
                )
        pairs = (
            ("clock", requested.clocks, limits.clocks),
            ("memory clock", requested.memory_clocks, limits.memory_clocks),
        )
        for name, lock, known in pairs:
            if lock is None or lock == (0, 0):
                continue
            if not known:
                raise UserError(f"{self.name} does not say which {name}s it has; it is not locked")
            if not min(known) <= lock[1] <= max(known):
                raise UserError(
                    f"a {name} of {lock[1]} MHz is outside what {self.name} allows",
                    hint=f"choose between {min(known)} and {max(known)} MHz",
                )

    def write(self, name: str, requested: CardSettings) -> None:
        """Change one setting; raise RunFailed if the driver refuses, which changes nothing."""
        value = getattr(requested, name)
        try:
            getattr(self, f"_set_{name}")(value)
        except self._nvml.NVMLError as error:
            raise RunFailed(self._refused(name, error), hint=self._remedy(error)) from None

    def verify(self, name: str, requested: CardSettings) -> None:
        """Read the setting back if possible; raise RunFailed if it differs."""
        value, now = getattr(requested, name), getattr(self.current(), name)
        if name in ("power_limit", "temp_limit") and now != value:
            raise RunFailed(
                f"{self.name}: the driver accepted a {name.replace('_', ' ')} of {value:g} "
                f"and still reports {now}",
                hint="another program may be setting it; nothing else is changed",
            )

    def _set_power_limit(self, watts: float) -> None:
        self._nvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(watts * 1000))

    def _set_clocks(self, lock: Lock) -> None:
        nvml = self._nvml
        if lock == (0, 0):
            nvml.nvmlDeviceResetGpuLockedClocks(self._handle)
        else:
            nvml.nvmlDeviceSetGpuLockedClocks(self._handle, *lock)

    def _set_memory_clocks(self, lock: Lock) -> None:
        nvml = self._nvml
        if lock == (0, 0):
            nvml.nvmlDeviceResetMemoryLockedClocks(self._handle)
        else:
            nvml.nvmlDeviceSetMemoryLockedClocks(self._handle, *lock)

    def _set_temp_limit(self, celsius: int) -> None:
        nvml = self._nvml
        nvml.nvmlDeviceSetTemperatureThreshold(
            self._handle, nvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX, celsius
        )

    def _refused(self, name: str, error: Any) -> str:
        return f"{self.name}: the driver refused the {name.replace('_', ' ')} ({error})"

    def _remedy(self, error: Any) -> str:
        if error.value == self._nvml.NVML_ERROR_NO_PERMISSION:
            return "setters need root: run it with sudo, or ask the administrator"
        if error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED:
            return "this card has no such setting"
        return "nvidia-smi -q shows the state of the card"

    def _ask(self, question: Callable[..., Any], *more: Any) -> Any:
        try:
            return question(self._handle, *more)
        except self._nvml.NVMLError:
            return None
