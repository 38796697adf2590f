"""Events: one JSON object per line, appended by one writer, followed by any number of readers.

A line is written by a single ``os.write`` to a file opened for appending, so a killed writer leaves
at most one torn last line. Readers skip a torn line; the next writer starts on a fresh one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vcell.as_json import plain

Event = dict[str, Any]
_CHUNK = 1 << 20  # bytes a reader asks for at once
_LOOK_BACK = 1 << 16  # bytes to read from the end of a file
_KNOWN_BY = 64  # bytes that identify a file


class EventLog:
    """The writing end of a file of events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = _ends_torn(path)

    def log(self, kind: str, step: int | None = None, **fields: Any) -> None:
        """Append one event; `fields` are numbers, texts, and lists and dicts of them."""
        event = {"t": round(time.time(), 3), "kind": kind}
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
    """The reading end: each `read` returns the events that became complete since the last one.

    It stores only a position in the file. If a file looks shorter than what was read, the tail
    waits, as the cache of a network file system may show an old size for some seconds. If the
    contents of the file have been replaced, it is read from the beginning, and `resets` grows by
    one: callers then drop what they have stored.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.left_out: bytes = b""  # lines that contain it are skipped, except at the end
        self.offset = offset  # bytes consumed, always at the start of a line
        self.size = 0  # of the file, as last seen
        self.reached = offset  # bytes read, which may include an incomplete last line
        self.resets = 0
        self._head = self._last = b""  # the first and the last bytes of what was consumed

    @classmethod
    def of_end(cls, path: Path, size: int = _LOOK_BACK) -> Tail:
        """Return a tail that begins with the first complete line of the last `size` bytes."""
        tail = cls(path)
        try:
            with path.open("rb") as stream:
                start = stream.seek(0, os.SEEK_END) - size
                if start > 0:
                    stream.seek(start - 1)  # the byte before shows whether a line begins here
                    stream.readline()
                    tail.offset = tail.reached = stream.tell()
                    tail._remember(stream)
        except OSError:
            pass  # missing: it will be read from the start
        return tail

    def read(self) -> list[Event]:
        """Return new complete events; a file that does not exist yet has none."""
        return [event for batch in self.batches() for event in batch]

    def batches(self, limit: int | None = None) -> Iterator[list[Event]]:
        """Yield new complete events, at most a mebibyte of them at a time.

        Parameters
        ----------
        limit
            Stop after this many bytes, at the end of a line; the next call continues there.
        """
        try:
            stream = self.path.open("rb")
        except OSError:
            return  # not there yet, or being removed
        with stream:
            if not self._is_here(stream):
                return
            stop = self.size if limit is None else min(self.size, self.offset + limit)
            while self.offset < stop:
                block = self._block(stream, min(limit or _CHUNK, _CHUNK))
                if not block:  # a line that is not complete yet, or never will be
                    self.reached = self.size
                    return
                self.offset += len(block)
                self.reached = self.offset
                self._remember(stream)
                if self.left_out and self.offset < self.size - _LOOK_BACK:
                    lines = block.splitlines(keepends=True)
                    block = b"".join(line for line in lines if self.left_out not in line)
                yield parse_lines(block)

    def _is_here(self, stream: BinaryIO) -> bool:
        """Return whether there is something to read; start over if the contents are new."""
        self.size = stream.seek(0, os.SEEK_END)
        place = min(len(self._last), self.offset)
        if self.size < self.offset:
            stream.seek(0)
            same = self._head.startswith(stream.read(len(self._head)))
            waits = True
        else:
            stream.seek(self.offset - place)
            same = stream.read(place) == self._last[len(self._last) - place :]
            waits = False
        if not same:
            self.offset, self.reached, self._head, self._last = 0, 0, b"", b""
            self.resets += 1
            return True
        return not waits

    def _block(self, stream: BinaryIO, size: int) -> bytes:
        """Return the complete lines of the next `size` bytes, or one line if it is longer."""
        stream.seek(self.offset)
        block = b""
        while chunk := stream.read(size):
            end = chunk.rfind(b"\n")
            if end >= 0:
                return block + chunk[: end + 1]
            block += chunk
        return b""

    def _remember(self, stream: BinaryIO) -> None:
        """Store the first bytes and the last ones before the position, to recognise the file."""
        if len(self._head) < min(_KNOWN_BY, self.offset):
            stream.seek(0)
            self._head = stream.read(min(_KNOWN_BY, self.offset))
        stream.seek(max(0, self.offset - _KNOWN_BY))
        self._last = stream.read(min(_KNOWN_BY, self.offset))


def last_step(path: Path) -> int | None:
    """Return the step of the last event that has one, reading only the end of the file."""
    steps = [event["step"] for event in Tail.of_end(path).read() if "step" in event]
    return next((step for step in reversed(steps) if isinstance(step, int)), None)


def parse_lines(block: bytes) -> list[Event]:
    """Return the events of complete lines; torn and foreign ones are skipped.

    Parsing all lines at once, joined to one JSON list, takes half the time.
    """
    try:
        found = json.loads(b"[" + block.rstrip(b"\n").replace(b"\n", b",") + b"]")
    except (ValueError, RecursionError):
        found = []
    if len(found) != block.count(b"\n"):  # some lines are not single objects
        return [event for line in block.split(b"\n") if (event := parse(line)) is not None]
    return [  # `_is_event`, without a call for each of a million
        event
        for event in found
        if isinstance(event, dict)
        and isinstance(event.get("kind"), str)
        and isinstance(event.get("t"), int | float)
    ]


def parse(line: bytes) -> Event | None:
    """Return the event of one line, or None for a torn or foreign one."""
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if _is_event(event) else None


def _is_event(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and isinstance(event.get("kind"), str)
        and isinstance(event.get("t"), int | float)
    )
