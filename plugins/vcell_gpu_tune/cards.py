"""Find the cards that a command refers to, and explain why if there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.errors import UserError
from vcell.gpu import nvml
from vcell.gpu.reading import bare

if TYPE_CHECKING:
    from vcell.gpu.nvml import Device


def chosen(gpu: str) -> list[Device]:
    """Return the cards named by --gpu, without MIG slices; a UserError if there are none."""
    found = nvml.devices()
    cards = {device.uuid: device for device in found.devices}
    physical = [device for device in cards.values() if not device.parent]
    if not found.devices:
        raise UserError(
            f"there is no GPU to look at: {found.reason}",
            hint=found.remedy or "vcell doctor shows what this machine has",
        )
    if gpu == "all":
        return physical or list(cards.values())
    match = [d for d in cards.values() if str(d.index) == gpu or bare(d.uuid).startswith(bare(gpu))]
    if len(match) != 1:
        listed = ", ".join(f"{d.index} ({d.uuid})" for d in cards.values())
        which = "no GPU" if not match else f"{len(match)} GPUs"
        raise UserError(f"{which} of this machine is called {gpu!r}", hint=f"there are {listed}")
    return match
