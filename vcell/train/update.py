"""One update of the weights from one global batch: pieces, averages, clipping, lack of memory.

The loss of a step is the mean over all examples of the global batch. A piece of n examples enters
with weight n / N, so that neither the number of processes nor the size of pieces matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcell.errors import RunFailed
from vcell.gpu.accelerator import accelerator
from vcell.train import batch as batches
from vcell.train import parallel, rng, trouble
from vcell.train.optim import local
from vcell.train.spans import Spans

if TYPE_CHECKING:
    from vcell.train.options import TrainOptions
    from vcell.train.precision import Precision
    from vcell.train.state import Learner
    from vcell.train.task import Batch, Place, Task


_NO_GRADIENT = "Expected to have finished reduction in the prior iteration"  # of DDP


@dataclass(frozen=True)
class Outcome:
    """What one step did, the same on every rank."""

    examples: int  # in the global batch
    metrics: dict[str, float]  # means over the global batch; "loss" among them
    gradient_norm: float  # before clipping
    applied: bool  # False where the gradients were not finite and the step was skipped
    where: str = ""  # which gradients were not finite


class Updater:
    """Updates the weights from batches; remembers the size of pieces that fits into memory."""

    def __init__(
        self,
        task: Task,
        learner: Learner,
        model: nn.Module,
        options: TrainOptions,
        place: Place,
        precision: Precision,
        tell: Callable[[str], None],
    ) -> None:
        self.task, self.learner, self.model, self.options = task, learner, model, options
        self.place, self.precision, self.tell = place, precision, tell
        self.accelerator = accelerator(place.device)
        self.spans = Spans(self.accelerator)
        self.micro_batch = options.micro_batch
        # Whether a whole step succeeded at this micro-batch. Until then DDP does not communicate
        # during backward, so that a process that runs out of memory can repeat its step without
        # the others noticing.
        self.proven = False
        self._idle: list[str] = []  # parameters without a gradient in the last step
        self._may_repeat = True

    def __call__(self, batch: Batch, *, total: int, overlap: bool, rate: float) -> Outcome:
        """Update the weights once.

        Parameters
        ----------
        batch
            This process's share of the global batch.
        total
            Examples in the global batch.
        overlap
            Whether the micro-batch fits on all processes, so that DDP may average during backward.
        rate
            The learning rate.
        """
        sums, names = self._gradients(batch, total, overlap=overlap)
        idle: list[str] = []
        if self.place.world_size > 1 and self.options.parallel == "ddp" and not overlap:
            idle = parallel.average_gradients(self.learner.model)
        try:
            outcome = self._apply(sums, names, total, rate)
        except Exception as error:
            _explain(error, "applying gradients")
            raise
        if idle and not self._idle:
            self.tell(
                f"the loss does not depend on {_listed(idle)}: gradients are averaged after the "
                "backward pass instead of during it, slower; freeze what is not trained"
            )
        self._idle = idle
        self.proven = not idle
        return outcome

    def _gradients(self, batch: Batch, total: int, *, overlap: bool) -> tuple[Tensor, list[str]]:
        """Compute the share's gradients, in smaller pieces each time memory runs out."""
        before = rng.capture(self.place.device)
        while True:
            self._may_repeat = self.place.world_size == 1 or self.options.parallel == "ddp"
            try:
                return self._attempt(batch, total, overlap=overlap)
            except Exception as error:
                if trouble.is_out_of_memory(error):
                    again, reason = self._shrink, trouble.first_line(error).split(". ")[0]
                elif self._compiles and trouble.is_compilers(error):
                    again, reason = self._stop_compiling, trouble.first_line(error)
                else:
                    _explain(error, "computing gradients")
                    raise
            # outside `except`: the error's traceback would hold the attempt's tensors in memory
            again(batches.length(batch), reason)
            rng.restore(before, self.place.device)

    def _attempt(self, batch: Batch, total: int, *, overlap: bool) -> tuple[Tensor, list[str]]:
        self.learner.optimizer.zero_grad(set_to_none=True)
        count = batches.length(batch)
        sums: Tensor | None = None
        names: list[str] = []
        done = 0
        for piece in batches.pieces(batch, self._pieces(count, total)):
            size = batches.length(piece)
            done += size
            communicates = overlap and done == count
            with parallel.without_sync(self.model, silent=not communicates):
                loss, metrics = self._forward(piece)
                # DDP and FSDP divide by the number of processes: undone here
                weight = size * self.place.world_size / total
                self._may_repeat = self._may_repeat and not communicates
                with self.spans("backward"):
                    (loss * (weight * self._scale)).backward()  # type: ignore[no-untyped-call]
            names = ["loss", *sorted(metrics)]
            row = _row({**metrics, "loss": loss}, names, loss.device) * size
            sums = row if sums is None else sums + row
        assert sums is not None, "a process got an empty share of the batch"
        return sums, names

    def _pieces(self, count: int, total: int) -> int:
        """Return how many pieces to cut a share into; with fsdp all ranks must cut alike."""
        if self.options.parallel == "fsdp":
            count = -(-total // self.place.world_size)
        return -(-count // (self.micro_batch or count))

    @property
    def _scale(self) -> float:
        """Factor on the loss in fp16; chosen so that averaging over processes does not overflow."""
        scaler = self.precision.scaler
        return scaler.scale / self.place.world_size if scaler else 1.0

    def _forward(self, piece: Batch) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        with self.spans("h2d"):
            piece = batches.to_device(piece, self.place.device)
        with self.spans("forward"), self.precision.autocast():
            return self.task.loss(self.model, piece)

    def _shrink(self, count: int, reason: str) -> None:
        """Halve the pieces, or raise where that is impossible."""
        size = min(self.micro_batch or count, count)
        half = max(1, size // 2)
        if size == 1:
            raise RunFailed(
                f"out of memory with a single example at a time ({reason})",
                hint="try --checkpoint-activations, --precision bf16, a smaller model or fewer "
                "genes",
            )
        if not self._may_repeat:
            raise RunFailed(
                f"out of memory with {size} examples at a time ({reason}); with "
                f"{self.options.parallel} over {self.place.world_size} processes the step cannot "
                "be repeated",
                hint=f"go on from the last checkpoint with --micro-batch {half}",
            )
        self.tell(
            f"out of memory with {size} examples at a time: going on with {half}; the result is "
            "the same, only slower"
        )
        self.micro_batch, self.proven = half, False
        self.learner.optimizer.zero_grad(set_to_none=True)
        self.accelerator.empty_cache()

    @property
    def _compiles(self) -> bool:
        return self.options.compile and self.learner.model._compiled_call_impl is not None

    def _stop_compiling(self, count: int, reason: str) -> None:
        """Continue without torch.compile, or raise where the step cannot be repeated."""
        del count
        if not self._may_repeat:
            raise RunFailed(
                f"torch.compile failed in the middle of a step that {self.place.world_size} "
                f"processes share: {reason}",
                hint="go on from the last checkpoint with --no-compile",
            )
        self.tell(f"torch.compile failed, going on without it, slower: {reason}")
        self.learner.model._compiled_call_impl = None

    @torch.no_grad()
    def _apply(self, sums: Tensor, names: list[str], total: int, rate: float) -> Outcome:
        """Clip and apply the averaged gradients, unless they are not finite."""
        with self.spans("optimiser"):
            sharded = self.place.world_size > 1 and self.options.parallel == "fsdp"
            parameters = [p for p in self.learner.model.parameters() if p.grad is not None]
            gradients = [local(p.grad) for p in parameters if p.grad is not None]
            squares = torch._foreach_norm(gradients)
            square = torch.stack([norm.double() for norm in squares]).square().sum()
            if sharded:
                square = parallel.summed(square)
            sums = parallel.summed(sums)
            loss_and_more = [value / total for value in sums.tolist()]  # waits for the device
            scale = self._scale
            norm = float(square.sqrt()) / scale
            metrics = dict(zip(names, loss_and_more, strict=True))
            finite = math.isfinite(norm) and math.isfinite(metrics["loss"])
            if self.precision.scaler:
                self.precision.scaler.update(finite=finite)
            if finite:
                limit = self.options.clip_norm
                factor = (limit / norm if 0 < limit < norm else 1.0) / scale
                if factor != 1.0:
                    torch._foreach_mul_(gradients, factor)
                self._step(rate)
        return Outcome(total, metrics, norm, finite, "" if finite else self._culprits())

    def _step(self, rate: float) -> None:
        for group in self.learner.optimizer.param_groups:
            group["lr"] = rate
        self.learner.optimizer.step()
        if self.learner.averaged is not None:
            self.learner.averaged.update()

    def _culprits(self) -> str:
        """Name the first parameters whose gradients are not finite."""
        bad = [
            name
            for name, parameter in self.learner.model.named_parameters()
            if parameter.grad is not None and not local(parameter.grad).isfinite().all()
        ]
        return _listed(bad)


def _explain(error: Exception, doing: str) -> None:
    """Raise an explained error for what a step cannot recover from; return for other errors."""
    if _NO_GRADIENT in str(error):
        raise RunFailed(
            "a parameter that had a gradient in earlier steps had none in the last one, so ddp "
            "never received it",
            hint="let the loss depend on the same parameters in every step",
        ) from None
    trouble.explain(error, doing, "try --parallel fsdp on several GPUs, or a smaller model")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _row(values: Mapping[str, Any], names: list[str], device: torch.device) -> Tensor:
    """Stack metrics in order of name without waiting for the device."""
    as_tensors = [
        torch.as_tensor(values[name], dtype=torch.float64, device=device).detach() for name in names
    ]
    return torch.stack(as_tensors)
