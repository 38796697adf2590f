"""The training loop: step, validate, write checkpoints, answer requests, stop and resume."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from vcell import console
from vcell.errors import UserError
from vcell.gpu.accelerator import accelerator
from vcell.runs import History
from vcell.train import batch as batches
from vcell.train import changes, parallel, precision, prepare, rng, state
from vcell.train.display import Display
from vcell.train.facts import facts
from vcell.train.guard import Guard
from vcell.train.optim import Averaged, build_optimizer, learning_rate
from vcell.train.stopping import Stopper
from vcell.train.update import Outcome, Updater
from vcell.train.validate import scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.runs import Run
    from vcell.train.control import Signals
    from vcell.train.options import TrainOptions
    from vcell.train.task import Phase, Place, Task

_PAUSE_POLL = 0.2  # seconds
_PULSE = 60.0  # seconds between heartbeats while paused
_KEEP = 2  # best checkpoints to keep: one to fall back on if the newest is damaged


@dataclass(frozen=True)
class Result:
    """How a training ended.

    ``done`` ran all its steps, ``early-stop`` ran out of patience, ``stopped`` was requested by a
    control file, ``interrupted`` by a signal. All four left a checkpoint of the last step.
    """

    ended: Literal["done", "early-stop", "stopped", "interrupted"]
    step: int
    best: float | None
    best_step: int | None
    metrics: dict[str, float]  # of the last validation
    seconds: float  # spent training, over all sessions

    @property
    def cut_short(self) -> bool:
        """Whether it was ended from outside before it was finished."""
        return self.ended in ("stopped", "interrupted")


@dataclass(frozen=True)
class Requests:
    """Requests to any of the processes, agreed on by all."""

    examples: int  # in the coming global batch
    signalled: bool = False
    stop: bool = False
    checkpoint: bool = False
    pause: bool = False
    overlap: bool = False


class Session:
    """One process's share of one uninterrupted stretch of training."""

    def __init__(
        self, task: Task, options: TrainOptions, run: Run, place: Place, signals: Signals
    ) -> None:
        self.task, self.options, self.run = task, options, run
        self.place, self.signals = place, signals
        self.log = run.rank_log(place.rank)
        self.step = self.examples = 0
        self.accelerator = accelerator(place.device)
        prepare.set_up_device(options, place)
        self.precision = precision.resolve(options.precision, place.device)
        model, called = prepare.build(task, options, place, self.tell)
        self.learner = state.Learner(
            model,
            build_optimizer(model, options, place.device),
            Averaged(model, options.ema) if options.ema else None,
        )
        self.update = Updater(task, self.learner, called, options, place, self.precision, self.tell)
        found = facts(task, self.learner.model, place, self.precision)
        if place.leads:
            run.update(**found)
        self.stream = task.batches(place)
        self.stopper = Stopper(higher_is_better=task.higher_is_better, patience=options.patience)
        self.guard = Guard(self.precision.name)
        self.phases: Sequence[Phase] = getattr(task, "phases", ())
        self.metrics: dict[str, float] = {}
        self._validated = self._saved = -1  # steps
        self._seconds, self._since = 0.0, time.monotonic()

    # -- where to start ------------------------------------------------------------------------

    def resume(self) -> None:
        """Continue from the newest intact checkpoint of the run, if it has any."""
        found = self._newest_intact() if self.place.leads else None
        step = parallel.agree([found if found is not None else -1 if self.place.leads else 0])[0]
        if step < 0:
            return
        checkpoint = self.run.checkpoint(step)
        saved = json.loads((checkpoint.path / "state.json").read_text())
        changes.check_identity(saved["identity"], dict(self.task.identity))
        for text in changes.compare(saved["options"], changes.plain(self.options)):
            self.tell(text)
        missing = state.restore(self.learner, checkpoint.path, self.place)
        if missing:
            self.tell(missing)
        self._load(saved)
        self.log.log("resume", step=self.step)
        if self.place.leads:
            self._serve("stop", "pause", "checkpoint")  # meant for the previous session
            self.run.log("resume", step=self.step, world_size=self.place.world_size)
            self.say(f"going on after step {self.step:,} of {self.options.max_steps:,}")

    def _newest_intact(self) -> int | None:
        """Return the step of the newest checkpoint whose files are intact."""
        steps: list[int] = sorted(self.run.checkpoints(), reverse=True)
        for step in steps:
            try:
                self.run.checkpoint(step).verify()
            except UserError as error:
                self.tell(f"{error.message}; trying the checkpoint before it")
                continue
            return step
        if steps:
            raise UserError(
                f"no checkpoint of {self.run.name} is whole (there "
                f"{'is 1' if len(steps) == 1 else f'are {len(steps)}'})",
                hint="start a new run",
            )
        return None

    def _load(self, saved: dict[str, Any]) -> None:
        self.step, self.examples = saved["step"], saved["examples"]
        self._saved, self._seconds = self.step, saved["seconds"]
        self.metrics = saved["metrics"]
        self._validated = saved["validated"]
        self.stopper.load_state_dict(saved["stopper"])
        self.guard.load_state_dict(saved["guard"])
        self.stream.load_state_dict(saved["stream"])
        if self.learner.averaged is not None:
            self.learner.averaged.updates = saved["averaged"]
        if saved["scaler"] and self.precision.scaler:
            self.precision.scaler.load_state_dict(saved["scaler"])
        if self.options.micro_batch == saved["options"]["micro_batch"]:
            self.update.micro_batch = saved["micro_batch"]  # may have been halved

    def _numbers(self) -> dict[str, Any]:
        """Return the contents of state.json: the inverse of `_load`."""
        return {
            "step": self.step,
            "examples": self.examples,
            "seconds": self.seconds,
            "metrics": self.metrics,
            "validated": self._validated,
            "stopper": self.stopper.state_dict(),
            "guard": self.guard.state_dict(),
            "stream": self.stream.state_dict(),
            "averaged": self.learner.averaged.updates if self.learner.averaged else 0,
            "scaler": self.precision.scaler.state_dict() if self.precision.scaler else None,
            "micro_batch": self.update.micro_batch,
            "options": changes.plain(self.options),
            "identity": dict(self.task.identity),
            "world_size": self.place.world_size,
            "torch": str(torch.__version__),
        }

    # -- the loop ------------------------------------------------------------------------------

    def train(self) -> Result:
        """Step until done, out of patience, or asked to end."""
        ended: Literal["done", "early-stop", "stopped", "interrupted"] = "done"
        left = max(0, self.options.max_steps - self.step)
        self.learner.model.train()
        history = History(self.run.path, ranks=False)
        leads, monitor = self.place.leads, self.task.monitor
        with Display(history, steps=left, monitor=monitor, leads=leads) as self.display:
            fresh = self.step == 0 and self._validated < 0
            if fresh and leads:
                for name, scores in getattr(self.task, "references", {}).items():
                    self.run.log("reference", step=0, name=name, **scores)
            if fresh and getattr(self.task, "validates_first", False):
                self._validate()
                self._save()
            while self.step < self.options.max_steps and ended == "done":
                requests = self._step()
                last = self.step == self.options.max_steps
                is_best = self._validate() if self._due("validate_every") or last else False
                if requests.pause:
                    requests = self._pause()
                if requests.signalled:
                    ended = "interrupted"
                elif requests.stop:
                    ended = "stopped"
                    self._serve("stop", "pause")
                elif self.stopper.exhausted:
                    ended = "early-stop"
                due = self._due("checkpoint_every") or requests.checkpoint
                if due or is_best or last or ended != "done":
                    self._save()
        self._say_end(ended)
        best, best_step = self.stopper.best, self.stopper.best_step
        return Result(ended, self.step, best, best_step, self.metrics, self.seconds)

    def _enter_phase(self) -> None:
        """Announce the phase that begins with the next step, if one does."""
        for phase in self.phases:
            if phase.start == self.step:
                self._announce(phase.name)

    def _due(
        self, name: Literal["validate_every", "checkpoint_every", "empty_cache_every"]
    ) -> bool:
        every: int = getattr(self.options, name)
        return every > 0 and self.step % every == 0

    def _step(self) -> Requests:
        """Take one step, and return the requests made before it."""
        begun = time.perf_counter()
        rate = learning_rate(self.step, self.options, self.phases)
        self._enter_phase()
        with self.update.spans.waiting("data"):
            batch = next(self.stream)
        requests = self._agree(batches.length(batch))
        outcome = self.update(batch, total=requests.examples, overlap=requests.overlap, rate=rate)
        if outcome.applied and hasattr(self.task, "stepped"):
            self.task.stepped(self.learner.model, outcome.metrics)
        self.step += 1
        self.examples += requests.examples
        if self._due("empty_cache_every"):
            self.accelerator.empty_cache()
        problem = self.guard.check(outcome, self.step)
        if problem and self.place.leads:
            self.tell(problem)
        self._record(outcome, batches.length(batch), rate, time.perf_counter() - begun)
        return requests

    def _agree(self, examples: int) -> Requests:
        """Exchange shares and requests with all processes."""
        requests = self.run.requests() if self.place.leads else set()
        mine = [
            examples,
            self.signals.received is not None,
            "stop" in requests,
            "checkpoint" in requests,
            "pause" in requests,
            self.update.proven,
        ]
        total, signalled, stop, checkpoint, pause, proven = parallel.agree(list(map(int, mine)))
        if checkpoint:
            self._serve("checkpoint")
        return Requests(
            examples=total,
            signalled=signalled > 0,
            stop=stop > 0,
            checkpoint=checkpoint > 0,
            pause=pause > 0,
            overlap=proven == self.place.world_size,
        )

    def _record(self, outcome: Outcome, share: int, rate: float, seconds: float) -> None:
        """Write the step into the events of the run and of this rank."""
        spans = self.update.spans.take()
        self.log.log("span", step=self.step, examples=share, seconds=round(seconds, 6), **spans)
        if not self.place.leads:
            return
        fields = {**outcome.metrics, "lr": rate, "grad_norm": outcome.gradient_norm}
        fields["examples_per_s"] = outcome.examples / seconds
        fields["examples"] = self.examples
        fields["data_wait"] = spans["data"] / seconds
        if self.precision.scaler:
            fields["loss_scale"] = self.precision.scaler.scale
        if peak := self.accelerator.peak_memory():
            fields["memory"] = peak
        self.run.log("metric", step=self.step, **fields)
        self.display.stepped(outcome.metrics["loss"])

    # -- now and then --------------------------------------------------------------------------

    def _validate(self) -> bool:
        """Score the model; return whether it is the best so far. Does not affect random numbers."""
        before = rng.capture(self.place.device)
        self.learner.model.eval()
        averaged = self.learner.averaged
        with (
            torch.no_grad(),
            self.precision.autocast(),
            averaged.applied() if averaged else nullcontext(),
        ):
            own = scored(self.task, self.learner.model, self.options, self.place, self.tell)
        parallel.forget_gathered(self.learner.model)
        self.learner.model.train()
        rng.restore(before, self.place.device)
        self.metrics = json.loads(parallel.gather_texts(json.dumps(own))[0])
        self._validated = self.step
        if self.task.monitor not in self.metrics:
            raise UserError(
                f"validation gave {', '.join(self.metrics) or 'nothing'}, but the task monitors "
                f"{self.task.monitor!r}"
            )
        is_best = self.stopper.update(self.metrics[self.task.monitor], self.step)
        if self.place.leads:
            self.run.log("eval", step=self.step, best=is_best, **self.metrics)
        self.display.validated(self.step, self.metrics)
        return is_best

    def _save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        if self._saved == self.step:
            return
        shot = state.snapshot(
            self.learner, self._numbers(), self.place.device, keep=self.place.leads
        )
        if self.place.leads:
            fresh = self._validated == self.step
            metric = self.metrics[self.task.monitor] if fresh else None
            better = self.task.higher_is_better
            self.run.save_checkpoint(
                self.step, shot.write, metric, higher_is_better=better, keep_best=_KEEP
            )
        self._saved = self.step

    def _pause(self) -> Requests:
        """Wait with a checkpoint written, until the request is withdrawn or another one comes."""
        self._save()
        begun = last_pulse = time.monotonic()
        self._announce("paused")
        while True:
            time.sleep(_PAUSE_POLL)
            requests = self._agree(0)
            if not requests.pause or requests.stop or requests.signalled:
                break
            if self.place.leads and time.monotonic() - last_pulse > _PULSE:
                last_pulse = time.monotonic()
                self.run.log("phase", step=self.step, name="paused")
        self._since += time.monotonic() - begun
        self._announce("training")
        return requests

    def _serve(self, *requests: str) -> None:
        if self.place.leads:
            for request in requests:
                self.run.clear(request)

    def _announce(self, name: str) -> None:
        if self.place.leads:
            self.run.log("phase", step=self.step, name=name)
            self.say(f"{name} at step {self.step:,}")

    def _say_end(self, ended: str) -> None:
        if not self.place.leads:
            return
        reason = {
            "done": "all steps done",
            "early-stop": f"no better {self.task.monitor} in {self.options.patience} validations",
            "stopped": "asked to stop",
            "interrupted": f"{self.signals.received or 'a signal'} on one of the processes",
        }[ended]
        self.say(f"training ended at step {self.step:,}: {reason}")

    # -- small things --------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Time spent training, over all sessions, pauses left out."""
        return self._seconds + time.monotonic() - self._since

    def say(self, text: str) -> None:
        """Print a message, on rank 0; with JSON output only to the log."""
        if self.place.leads:
            (console.note if console.settings.json else console.say)(text)

    def tell(self, text: str) -> None:
        """Warn on the console and in the events."""
        console.warn(text if self.place.leads else f"rank {self.place.rank}: {text}")
        log = self.run if self.place.leads else self.log
        log.log("warn", step=self.step, text=text)

    def close(self) -> None:
        """Close the stream and this rank's log."""
        self.log.close()
        close = getattr(self.stream, "close", None)
        if close is not None:
            close()
