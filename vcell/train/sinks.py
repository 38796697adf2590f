"""Send a run's metrics elsewhere, by reading the same events as all other readers.

A sink is a thread that follows events.jsonl; the loop knows nothing about it, and a sink that fails
is reported and dropped. Weights & Biases follows its own settings (``WANDB_MODE=offline`` ...).
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.runs import Run

_EVERY = 2.0  # seconds between looks
_NOT_VALUES = frozenset({"t", "step", "kind", "best"})


class Sink(Protocol):
    """A receiver of metrics."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of one event."""

    def close(self) -> None:
        """Flush and close."""


class TensorBoard:
    """Event files under the run directory's tensorboard/."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.path / "tensorboard"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of one event."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WeightsAndBiases:
    """A Weights & Biases run of the same name; a resumed run continues it."""

    def __init__(self, run: Run) -> None:
        import wandb

        self._run = wandb.init(
            project="vcell", name=run.name, id=run.name, resume="allow", dir=str(run.path)
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take one event's numbers."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Flush and close."""
        self._run.finish()


_KINDS: dict[str, Callable[[Run], Sink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


@contextmanager
def following(run: Run, names: Sequence[str]) -> Iterator[None]:
    """Feed the named sinks from the run's events while the block runs."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed", hint=f"pip install 'vcell[{name}]'")
    if not names:
        yield
        return
    follower = _Follower(run, [_opened(name, run) for name in names])
    follower.start()
    try:
        yield
    finally:
        follower.finish()


def _opened(name: str, run: Run) -> Sink:
    try:
        return _KINDS[name](run)
    except Exception as error:
        raise UserError(f"{name} could not be started: {error}") from error


class _Follower(threading.Thread):
    """Read new events every few seconds and pass on their numbers."""

    def __init__(self, run: Run, sinks: list[Sink]) -> None:
        super().__init__(name="sinks", daemon=True)
        from vcell.runs import Tail

        self._tail = Tail.of_end(run.path / "events.jsonl")
        self._tail.read()  # skip what earlier sessions have sent
        self._resets = 0
        self._sinks = sinks
        self._done = threading.Event()

    def run(self) -> None:
        """Follow the events until `finish` is called."""
        while not self._done.wait(_EVERY):
            self._pass_on()

    def finish(self) -> None:
        """Send the last events and close."""
        self._done.set()
        self.join()
        self._pass_on()
        for sink in list(self._sinks):
            self._try(sink, sink.close)

    def _pass_on(self) -> None:
        events = self._tail.read()
        if self._tail.resets != self._resets:  # read again from the beginning: already sent
            self._resets = self._tail.resets
            return
        for event in events:
            if event["kind"] not in ("metric", "eval"):
                continue
            values = {f"{event['kind']}/{k}": v for k, v in event.items() if _is_value(k, v)}
            for sink in list(self._sinks):
                self._try(sink, partial(sink.add, event["step"], values))

    def _try(self, sink: Sink, action: Callable[[], None]) -> None:
        """Call a sink; drop it if the call fails."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - training goes on
            console.warn(f"{type(sink).__name__} failed, going on without: {error}")
            self._sinks.remove(sink)


def _is_value(name: str, value: Any) -> bool:
    return name not in _NOT_VALUES and isinstance(value, int | float)
