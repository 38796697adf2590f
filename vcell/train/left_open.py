"""Values chosen for settings that the user did not give, with reasons.

A trainer chooses them by data and machine, prints them, and stores them in the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from vcell.gpu.nvml import devices

if TYPE_CHECKING:
    from vcell.launch import Plan


@dataclass(frozen=True)
class Machine:
    """The device that trains."""

    kind: Literal["cpu", "cuda"]
    name: str = "CPU"
    memory: int = 0  # bytes of one device; 0: unknown
    bf16: bool = False
    world: int = 1


@dataclass(frozen=True)
class Choice:
    """One setting that was chosen, and the reason."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        shown = f"{self.value:,}" if isinstance(self.value, int) else str(self.value)
        return f"{self.name.replace('_', '-')} {shown}: {self.reason}"


def left_open(config: Any, origins: Mapping[str, str]) -> set[str]:
    """Return the names of settings that were given nowhere: those at their defaults."""
    return {
        one.name
        for one in fields(config)
        if one.default is not MISSING
        and getattr(config, one.name) == one.default
        and origins.get(one.name, "default") == "default"
    }


def words(chosen: Sequence[Choice]) -> str:
    """List the choices, one per line."""
    lines = "\n".join(f"  {one}" for one in chosen)
    return f"settings that were not given, chosen for this screen on this machine:\n{lines}"


def machine_of(plan: Plan) -> Machine:
    """Describe the smallest of the devices that the plan uses."""
    if plan.device == "cpu":
        return Machine("cpu", world=plan.world)
    cards = devices().devices[: plan.procs]
    least = min(cards, key=lambda card: card.memory, default=None)
    if least is None:
        return Machine("cuda", "a GPU", world=plan.world)
    return Machine("cuda", least.name, least.memory, least.capability >= (8, 0), plan.world)
