"""Let a task score its model, in smaller parts if memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vcell.errors import RunFailed
from vcell.gpu.accelerator import accelerator
from vcell.train import trouble

if TYPE_CHECKING:
    from torch import nn

    from vcell.train.options import TrainOptions
    from vcell.train.task import Place, Task


def scored(
    task: Task, model: nn.Module, options: TrainOptions, place: Place, tell: Callable[[str], None]
) -> dict[str, float]:
    """Return the task's metrics.

    If memory runs out, cached memory is released first; then the task's `validation_batch` is
    halved, if it has one. Processes that hold shards of a model must all repeat together, so one
    cannot retry alone.
    """
    alone = place.world_size == 1 or options.parallel == "ddp"
    given_back = False
    while True:
        try:
            return {name: float(value) for name, value in task.validate(model).items()}
        except Exception as error:
            if not (alone and trouble.is_out_of_memory(error)):
                trouble.explain(error, "validating", "validate less, or in smaller parts")
                raise
            reason = trouble.first_line(error)
        accelerator(place.device).empty_cache()
        if not given_back:
            given_back = True
            continue
        size = getattr(task, "validation_batch", 1)
        if size <= 1:
            raise RunFailed(
                f"out of memory while validating ({reason})",
                hint="take a smaller model or fewer genes, or --parallel fsdp on several GPUs",
            )
        task.validation_batch = size // 2  # type: ignore[attr-defined]
        tell(f"out of memory while validating {size} at a time: going on with {size // 2}")
