"""The messages of a run: the console, each rank's output, failures and events."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from vcell.monitor import words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vcell.runs import Event, History

MOST = 2000  # maximum number of entries per source
_FIRST = 1 << 18  # bytes to read first, from the end of a file
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  ?(.*)$")
_BAD = re.compile(r"\b(error|traceback|exception|out of memory|killed|nan)\b", re.IGNORECASE)
_FAILED = re.compile(r"^error-(\d+)-rank-(\d+)\.json$")


class LogEntry(NamedTuple):
    """One message."""

    time: float  # 0 if unknown
    source: str  # console, rank 0 ..., event
    text: str
    level: str = ""  # "", warn or bad
    more: tuple[str, ...] = ()  # further lines, such as of a traceback


class _Text:
    """The end of a text file, followed as it grows."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source
        self.entries: list[LogEntry] = []
        self._offset = -1
        self._rest = b""
        self._time = 0.0

    def read(self) -> bool:
        """Read new text; return whether there was any."""
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                if self._offset < 0:
                    self._offset = max(0, size - _FIRST)
                    stream.seek(self._offset)
                    if self._offset:
                        self._offset += len(stream.readline())
                if size <= self._offset:
                    return False
                stream.seek(self._offset)
                new = stream.read(_FIRST)
        except OSError:
            return False
        self._offset += len(new)
        lines = (self._rest + new).split(b"\n")
        self._rest = lines.pop()[-_FIRST:]
        for line in lines:
            self._add(line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2])
        del self.entries[:-MOST]
        return True

    def _add(self, line: str) -> None:
        text = line
        if match := _STAMP.match(line):
            with suppress(ValueError, OverflowError):
                self._time = time.mktime(time.strptime(match[1], "%Y-%m-%d %H:%M:%S"))
            text = match[2]
        elif self.entries and line[:1] in (" ", "\t") and line.strip():
            last = self.entries[-1]  # continued
            self.entries[-1] = last._replace(more=(*last.more, words.clean(line)))
            return
        text = words.clean(text)
        if text.strip():
            level = "warn" if text.startswith("warning:") else "bad" if _BAD.search(text) else ""
            self.entries.append(LogEntry(self._time, self.source, text, level))


class Logs:
    """All messages of one run.

    Parameters
    ----------
    path
        The run directory.
    history
        Its events.
    """

    def __init__(self, path: Path, monitor: str = "") -> None:
        self.path, self.monitor = path, monitor
        self._texts: dict[Path, _Text] = {}
        self._failures: dict[str, LogEntry] = {}

    def read(self) -> bool:
        """Read new messages; return whether there were any."""
        for path, source in _files(self.path / "logs"):
            self._texts.setdefault(path, _Text(path, source))
        changed = [text.read() for text in self._texts.values()]
        return self._read_failures() or any(changed)

    def _read_failures(self) -> bool:
        changed = False
        with suppress(OSError):
            for path in sorted((self.path / "logs").iterdir()):
                match = _FAILED.match(path.name)
                if match and path.name not in self._failures:
                    self._failures[path.name] = _failure(path, *match.groups())
                    changed = True
        return changed

    @property
    def sources(self) -> list[str]:
        """Return the names of the sources."""
        found = dict.fromkeys(text.source for text in self._texts.values())
        ranks = sorted((s for s in found if s.startswith("rank ")), key=lambda s: int(s[5:]))
        return ["all", *(["console"] if "console" in found else []), *ranks, "events"]

    def entries(self, source: str, history: History, until: float | None = None) -> list[LogEntry]:
        """Return the messages, oldest first.

        Parameters
        ----------
        source
            One of `sources`. ``all`` is the console, failures and events, by time; the output of
            single processes has no times and is shown alone.
        history
            The run's events.
        until
            Leave out later messages, for a replay.
        """
        if source.startswith("rank "):
            return [e for t in self._texts.values() if t.source == source for e in t.entries]
        found: list[LogEntry] = []
        if source in ("all", "console"):
            found += [e for t in self._texts.values() if t.source == "console" for e in t.entries]
        if source in ("all", "events"):
            found += events_as_entries(history, self.monitor, doubled=source == "all")
        if source == "all":
            found += self._failures.values()
        if until is not None:
            found = [entry for entry in found if entry.time <= until]
        return sorted(found, key=lambda entry: entry.time)[-MOST:]


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the output files, including torchrun's of the last attempt."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name == "console.log":
            yield entry, "console"
        elif entry.is_dir():
            with suppress(OSError):
                for path in sorted(entry.glob("attempt_*/*/std*.log")):
                    if path.parent.name.isdecimal():
                        yield path, f"rank {path.parent.name}"


def _failure(path: Path, launch: str, rank: str) -> LogEntry:
    try:
        found = json.loads(path.read_bytes())
        when, message = float(found["time"]), str(found["message"])
        trace = tuple(words.clean(line) for line in str(found.get("traceback") or "").splitlines())
    except (OSError, ValueError, KeyError, TypeError):
        when, message, trace = 0.0, f"{path.name} is damaged", ()
    text = words.clean(f"{message.splitlines()[0] if message else 'failed'} (launch {launch})")
    return LogEntry(when, f"rank {rank}", text, "bad", trace)


def events_as_entries(history: History, monitor: str, *, doubled: bool) -> list[LogEntry]:
    """Return events as lines; with `doubled`, without those that are also on the console."""
    found: list[LogEntry] = []
    evals = history.table("eval")
    if not doubled:
        found += [
            LogEntry(evals.times[i], "event", _validation(evals.row(i), evals.steps[i], monitor))
            for i in range(max(0, len(evals) - MOST), len(evals))
        ]
    for event in history.notes():
        text, level = _described(event)
        source = f"rank {event['rank']}" if event.get("rank") else "event"
        if doubled and event["kind"] in ("warn", "phase") and not event.get("rank"):
            continue
        found.append(LogEntry(float(event["t"]), source, words.clean(text), level))
    return found


def _validation(row: dict[str, Any], step: int, monitor: str) -> str:
    best = " (best)" if row.pop("best", 0.0) == 1.0 else ""
    names = sorted(row, key=lambda name: (name != monitor, name))
    values = [f"{n} {words.number(row[n])}" for n in names if isinstance(row[n], float)]
    if values:
        values[0] += best
    return f"step {step:,}: " + ", ".join(values)


def _described(event: Event) -> tuple[str, str]:
    """Return an event as a sentence, and its level."""
    kind, step = event["kind"], event.get("step")
    at = f"step {step:,}: " if isinstance(step, int) else ""
    if kind == "warn":
        return f"{at}{event.get('text', '')}", "warn"
    if kind == "ckpt":
        metric = event.get("metric")
        value = f", {words.number(metric)}" if isinstance(metric, float) else ""
        return f"checkpoint {event.get('path', '')}{value}", ""
    if kind == "phase":
        return f"{at}{event.get('name', '')}", ""
    if kind == "resume":
        return f"going on after step {step:,}" if isinstance(step, int) else "resumed", ""
    if kind == "end":
        status = str(event.get("status", ""))
        error = event.get("error")
        return (
            f"ended: {status}{f', {error}' if error else ''}",
            "bad" if status == "failed" else "",
        )
    rest = {k: v for k, v in event.items() if k not in ("t", "kind", "step", "rank")}
    return f"{at}{kind} {json.dumps(rest, default=str)[:200] if rest else ''}".rstrip(), ""


def when(entry: LogEntry, now: float) -> str:
    """Return the time of an entry, with its date if that is not today's."""
    if not entry.time:
        return ""
    moment = datetime.fromtimestamp(entry.time)
    if moment.date() == datetime.fromtimestamp(now).date():
        return f"{moment:%H:%M:%S}"
    return f"{moment:%m-%d %H:%M}"
