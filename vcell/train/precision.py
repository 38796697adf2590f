"""The arithmetic of a step: autocast, tf32, and fp16's loss scale."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from vcell import console
from vcell.errors import UserError
from vcell.gpu.accelerator import accelerator

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class LossScale:
    """fp16's moving loss scale: halved on overflow, doubled after `grow_every` steps without."""

    scale: float = 2.0**16
    quiet: int = 0  # steps since it last changed
    grow_every: int = 2000

    def update(self, *, finite: bool) -> None:
        """Adjust the scale after a step."""
        self.quiet = self.quiet + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.quiet >= self.grow_every:
            self.scale, self.quiet = self.scale * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and the steps since it changed."""
        return {"scale": self.scale, "quiet": self.quiet}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved scale."""
        self.scale, self.quiet = state["scale"], state["quiet"]


@dataclass(frozen=True)
class Precision:
    """A resolved precision on one kind of device."""

    name: str  # fp32 | tf32 | bf16 | fp16
    device: torch.device
    scaler: LossScale | None = field(default=None)

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations."""
        return _HALF.get(self.name, torch.float32)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        if self.name not in _HALF:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.name])


def resolve(name: str, device: torch.device) -> Precision:
    """Choose the precision for a device, set torch's tf32 switch, and report the choice."""
    it = accelerator(device)
    gpu = device.type == "cuda"
    if name == "auto":
        name = "bf16" if it.bf16 else "fp32"
        console.detail(f"precision: {name} on {device.type}")
    if name == "tf32" and not gpu:
        console.warn("precision tf32 has no effect on a CPU: computing in fp32")
        name = "fp32"
    if name == "bf16" and gpu and not it.bf16:
        raise UserError(f"{it.name} has no bf16", hint="set precision to fp16")
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    return Precision(name, device, LossScale() if name == "fp16" else None)
