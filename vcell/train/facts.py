"""Facts about a training for run.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcell.cores import cores
from vcell.gpu.accelerator import accelerator
from vcell.train import parallel

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vcell.train.precision import Precision
    from vcell.train.task import Place, Task


def facts(task: Task, model: nn.Module, place: Place, precision: Precision) -> dict[str, Any]:
    """Describe the training; every process must call this, to gather its device.

    Returns
    -------
    dict
        ``monitor`` and ``higher_is_better`` of the task, the number of trained ``parameters``,
        the ``precision``, and the name of each rank's device as ``devices``.
    """
    return {
        "monitor": task.monitor,
        "higher_is_better": task.higher_is_better,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "precision": precision.name,
        "devices": parallel.gather_texts(device_name(place.device)),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with the number of usable cores."""
    name = accelerator(device).name
    return name if device.type == "cuda" else f"{name}, {cores()} cores"
