"""Settings that the user did not give, and what was chosen for them, with reasons.

A trainer chooses them by the data and the machine, prints them, and keeps them in the run.
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
    """What computes."""

    kind: Literal["cpu", "cuda"]
    name: str = "CPU"
    memory: int = 0  # bytes of one device; 0: unknown
    bf16: bool = False
    world: int = 1


@dataclass(frozen=True)
class Choice:
    """One setting that was decided, and why so."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        shown = f"{self.value:,}" if isinstance(self.value, int) else str(self.value)
        return f"{self.name.replace('_', '-')} {shown}: {self.reason}"


def left_open(config: Any, origins: Mapping[str, str]) -> set[str]:
    """Return the settings that nobody gave: at their default, and not from anywhere else."""
    return {
        one.name
        for one in fields(config)
        if one.default is not MISSING
        and getattr(config, one.name) == one.default
        and origins.get(one.name, "default") == "default"
    }


def words(chosen: Sequence[Choice]) -> str:
    """Tell what was decided, a line each."""
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
