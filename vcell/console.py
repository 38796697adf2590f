"""Output for people: messages and progress on stderr, results on stdout.

Results are the only thing on stdout, so that they can be piped; with ``--json`` they are one JSON
document. Everything else goes to stderr. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, TextIO

from vcell import tables
from vcell.as_json import plain

QUIET, NORMAL, VERBOSE = -1, 0, 1
_SHOW_AFTER = 2.0  # seconds: nothing shorter deserves a progress bar
_LINE_EVERY = 10.0  # seconds between lines where there is no terminal
#: Control characters but tab and newline: names from files must not steer a terminal.
_ASCII = {
    "\u2500": "-", "\u2501": "=", "\u2013": "-", "\u2014": "-", "\u2020": "*", "\u2026": "...",
    "\u00d7": "x", "\u00b1": "+-", "\u2192": "->", "\u2264": "<=", "\u2265": ">=", "\u2212": "-",
    "\u00b7": "*", "\u2022": "*", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\ufffd": "?", "\u03b1": "alpha", "\u0394": "delta", "\u00b2": "2", "\u00b0": " degrees",
}  # fmt: skip
_UNSEEN = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


@dataclass
class Settings:
    """How this process talks; set once by the command line."""

    json: bool = False
    told: bool = False  # a result is on stdout
    verbosity: int = NORMAL
    warned: Callable[[str], None] | None = None  # takes warnings, instead of stderr
    results: Callable[[Any], None] | None = None  # takes results, instead of stdout


settings = Settings()
_ENDLESS = re.compile(r"(\S{150})\S{850,}")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_copies: list[TextIO] = []


def say(text: str) -> None:
    """Tell the user what is going on, unless asked to be quiet."""
    if settings.verbosity >= NORMAL:
        _err(_visible(text))
    else:
        note(text)


def note(text: str) -> None:
    """Tell it to the log alone; see `copied_to`."""
    if _copies:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk is told of by whatever must be written
            _copies[-1].write(f"{stamp}  {_visible(text)}\n")
            _copies[-1].flush()


@contextmanager
def copied_to(stream: TextIO) -> Iterator[None]:
    """Write every message into a file too, with its time, while the block runs."""
    _copies.append(stream)
    try:
        yield
    finally:
        _copies.remove(stream)
        with suppress(OSError):
            stream.close()


def detail(text: str) -> None:
    """Tell what only --verbose should show."""
    if settings.verbosity >= VERBOSE:
        _err(_visible(text))


def warn(text: str) -> None:
    """Say what the user must know even under --quiet: a slower path, a setting without effect."""
    if settings.warned is not None:
        settings.warned(_visible(text))
        note(f"warning: {text}")
        return
    _err(_visible(text), "warning: ", "33")


def error(text: str, hint: str | None = None, *, code: int | None = None) -> None:
    """Say what went wrong and how to mend it.

    With `code`, the exit code, the command ends here: with ``--json`` stdout gets an error object.
    Words of hundreds of letters, which stand in a file by mistake, are cut.
    """
    text, hint = (_ENDLESS.sub(r"\1...", words or "") for words in (text, hint))
    if settings.json and code is not None and not settings.told:
        failed = {"error": {"message": text, "hint": hint or None, "exit_code": code}}
        with suppress(OSError):
            _out(json.dumps(failed, indent=2) + "\n")
    _err(_visible(text), "error: ", "1;31")
    if hint:
        _err(_visible(hint), "  hint: ", "36")


def result(data: Mapping[str, Any] | Sequence[Any], text: str) -> None:
    """Print the outcome of a command: `data` as JSON with --json, else `text`."""
    settings.told = True
    if settings.results is not None:
        settings.results(plain(data))
        return
    if settings.json:
        _out(json.dumps(plain(data), indent=2, allow_nan=False) + "\n")
    elif text:
        _out(tables.fitted(_visible(text).rstrip("\n"), room()) + "\n")


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], width: int | None = None) -> str:
    """Lay out rows under column heads; numbers are right-aligned.

    A table that is wider than the terminal has its widest column of words wrapped; where that does
    not do, each row becomes a block of lines, one a column. Away from a terminal nothing is cut.

    Parameters
    ----------
    width
        Columns of the terminal; None asks it.
    """
    # Spelt first: a sign that becomes two letters later would make the table too wide.
    body = [[_shown_on(sys.stdout, _cell(value)) for value in row] for row in rows]
    return tables.lay_out(body, list(columns), room() if width is None else width)


def room() -> int | None:
    """Return the columns of the terminal that results go to; None where they go elsewhere."""
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdigit() and int(told) > 0 else _columns(sys.stdout)


def _columns(stream: TextIO) -> int | None:
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: 1 cell, 2,000 cells."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class Progress:
    """Counts work done and shows rate and time left, on a terminal as a bar, elsewhere as lines."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.read = 0.0  # bytes
        self.note = ""
        self.started = time.monotonic()
        self._shown = -_LINE_EVERY  # the first line comes when it is deserved
        self._live = _steers(sys.stderr) and settings.verbosity >= NORMAL
        self._silent = settings.verbosity < NORMAL
        self._drawn = False

    def advance(self, amount: float = 1, note: str = "", *, read: float = 0.0) -> None:
        """Count `amount` more units as done, `read` bytes of a file for them.

        `note` replaces the words behind the bar.
        """
        self.done += amount
        self.read += read
        self.note = note or self.note
        now = time.monotonic()
        interval = 0.1 if self._live else _LINE_EVERY
        if self._silent or now - self.started < _SHOW_AFTER or now - self._shown < interval:
            return
        self._shown = now
        self._draw(now)

    def _draw(self, now: float) -> None:
        text = self._text(now)
        if self._live:
            width = _columns(sys.stderr) or 80
            _write(sys.stderr, "\r\x1b[K" + text[: width - 1])
            self._drawn = True
        else:
            _err(text)

    def _text(self, now: float) -> str:
        elapsed = now - self.started
        rate = self.done / elapsed if elapsed else 0.0
        speed = f"{human(rate)}/s"
        if self.read and elapsed:
            speed += f", {human(self.read / elapsed / 1e6)} MB/s"
        parts = [self.label]
        if self.total:
            share = min(self.done / self.total, 1.0)
            filled = round(20 * share)
            parts.append(f"{'━' * filled}{'─' * (20 - filled)} {share:4.0%}")
            left = (self.total - self.done) / rate if rate else 0.0
            count = f"{human(self.done)}/{human(self.total)} {self.unit}"
            parts.append(f"{count}, {speed}, {duration(left)} left")
        else:
            parts.append(f"{human(self.done)} {self.unit}, {speed}, {duration(elapsed)}")
        return _visible(" ".join([*parts, self.note])).rstrip()

    def close(self) -> None:
        """Wipe the bar off the terminal."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "cells") -> Iterator[Progress]:
    """Show progress with rate and time left for anything that takes over two seconds."""
    bar = Progress(label, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def human(number: float) -> str:
    """Write a count briefly: 1,234 or 5.6 M."""
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def bytes_text(size: float) -> str:
    """Write a number of bytes briefly: 1.5 GiB."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << power:
            return f"{size / (1 << power):.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Write a duration briefly: 4 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def prepare() -> None:
    """Begin a command: nothing is told yet, and a sign that a terminal lacks does not end it."""
    settings.told = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard() -> None:
    """Send what is still to be printed nowhere: its reader is gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _out(text: str) -> None:
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise
    except OSError:
        discard()  # else Python tries once more at its end, and complains in its own words
        raise


def _err(text: str, mark: str = "", colour: str = "") -> None:
    """Print words, fitted to the terminal, behind a coloured mark."""
    plain_text = tables.fitted(mark + text, _columns(sys.stderr))
    with suppress(OSError):  # nobody is there to be told
        _write(sys.stderr, _paint(mark, colour) + plain_text[len(mark) :] + "\n")
    note(mark + text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(_shown_on(stream, text))
    stream.flush()


def _shown_on(stream: TextIO, text: str) -> str:
    """Spell the signs that the encoding of a terminal lacks in ASCII."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    if text.isascii():
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        lacking = [sign for sign in _ASCII if not _has(encoding, sign)]
        return text.translate({ord(sign): _ASCII[sign] for sign in lacking})
    except LookupError:
        pass
    return text


def spelt(sign: str) -> str:
    """Return a sign as stdout can show it."""
    return _shown_on(sys.stdout, sign)


def _has(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _visible(text: str) -> str:
    return text.translate(_UNSEEN)


def _paint(text: str, code: str) -> str:
    coloured = code and _steers(sys.stderr) and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if coloured else text


def _steers(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands escape codes."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
