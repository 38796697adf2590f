"""Requests to a running training: control files, and the signals of a scheduler."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from vcell import console


class Signals:
    """Note signals to end until the step is done; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == "SIGINT":
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            console.say("finishing the step, then writing a checkpoint (Ctrl-C again: at once)")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
