"""Events: one JSON object a line, appended by one writer, followed by any number of readers.

A line is written by a single ``os.write`` to a file opened for appending, so a killed writer leaves
at most one torn last line. Readers skip a torn line; the next writer starts on a fresh one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vcell.as_json import plain

Event = dict[str, Any]
_CHUNK = 1 << 20  # bytes a reader asks for at once
_LOOK_BACK = 1 << 16  # bytes in which the last step is looked for


class EventLog:
    """The writing end of a file of events."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = _ends_torn(path)

    def log(self, kind: str, step: int | None = None, **fields: Any) -> None:
        """Append one event; `fields` are numbers, texts, and lists and dicts of them."""
        event = {"t": round(self._clock(), 3), "kind": kind}
        if step is not None:
            event["step"] = step
        line = json.dumps(event | plain(fields), separators=(",", ":"), allow_nan=False) + "\n"
        data = line.encode()
        written = os.write(self._descriptor, b"\n" + data if self._torn else data)
        # a full disk can cut a write short: the next line must not continue this one
        self._torn = written < len(data) + self._torn

    def close(self) -> None:
        """Close the file; the log cannot be used afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return False
        stream.seek(size - 1)
        return stream.read(1) != b"\n"


class Tail:
    """The reading end: each `read` returns the events that became complete since the last one."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset  # bytes consumed, always at the start of a line
        self._rest = b""

    def read(self) -> list[Event]:
        """Return new complete events; a file that does not exist yet has none."""
        events: list[Event] = []
        try:
            with self.path.open("rb") as stream:
                if stream.seek(0, os.SEEK_END) < self.offset + len(self._rest):
                    self.offset, self._rest = 0, b""  # replaced by a shorter file: begin again
                stream.seek(self.offset + len(self._rest))
                while chunk := stream.read(_CHUNK):
                    events += self._split(chunk)
        except FileNotFoundError:
            return []
        return events

    def _split(self, chunk: bytes) -> Iterable[Event]:
        whole, newline, rest = (self._rest + chunk).rpartition(b"\n")
        self._rest = rest
        self.offset += len(whole) + len(newline)
        return [event for line in whole.split(b"\n") if (event := parse(line)) is not None]


def last_step(path: Path) -> int | None:
    """Return the step of the last event that has one, reading only the end of the file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    steps = [e["step"] for e in Tail(path, max(0, size - _LOOK_BACK)).read() if "step" in e]
    return next((step for step in reversed(steps) if isinstance(step, int)), None)


def parse(line: bytes) -> Event | None:
    """Return the event of one line, or None for a torn or foreign one."""
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(event, dict) and isinstance(event.get("kind"), str)
    return event if is_event and isinstance(event.get("t"), int | float) else None


def surviving(events: Iterable[Event]) -> list[Event]:
    """Drop what a resumed run has overtaken: steps after the one it went on from."""
    kept: list[Event] = []
    for event in events:
        if event["kind"] == "resume" and isinstance(event.get("step"), int):
            kept = [e for e in kept if not _is_after(e, event["step"])]
        kept.append(event)
    return kept


def _is_after(event: Event, step: int) -> bool:
    at = event.get("step")
    return isinstance(at, int) and at > step and event["kind"] != "resume"
