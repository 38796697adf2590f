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
from vcell.errors import UserError

QUIET, NORMAL, VERBOSE = -1, 0, 1
_SHOW_AFTER = 2.0  # seconds: no progress bar for shorter work
_LINE_EVERY = 10.0  # seconds between lines without a terminal
#: Control characters except tab and newline: names from files must not control a terminal.
_ASCII = {
    "\u2500": "-", "\u2501": "=", "\u2013": "-", "\u2014": "-", "\u2020": "*", "\u2026": "...",
    "\u00d7": "x", "\u00b1": "+-", "\u2192": "->", "\u2264": "<=", "\u2265": ">=", "\u2212": "-",
    "\u00b7": "*", "\u2022": "*", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\ufffd": "?", "\u03b1": "alpha", "\u0394": "delta", "\u00b2": "2", "\u00b0": " degrees",
}  # fmt: skip
_UNSEEN = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


@dataclass
class Settings:
    """Output settings of this process, set once by the command line."""

    json: bool = False
    printed: bool = False  # whether a result is on stdout
    verbosity: int = NORMAL
    warned: Callable[[str], None] | None = None  # receives warnings instead of stderr
    results: Callable[[Any], None] | None = None  # receives results instead of stdout
    said: set[str] | None = None  # messages that are not printed again; see `each_once`


settings = Settings()
_ENDLESS = re.compile(r"(\S{150})\S{850,}")
_copies: list[TextIO] = []


def say(text: str) -> None:
    """Print a message, except with --quiet."""
    if settings.verbosity >= NORMAL and not _again(text):
        _err(_visible(text))
    else:
        note(text)


def note(text: str) -> None:
    """Write a message only to the log; see `copied_to`."""
    if _copies:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk is reported by other writers
            _copies[-1].write(f"{stamp}  {_visible(text)}\n")
            _copies[-1].flush()


@contextmanager
def each_once(said: set[str]) -> Iterator[None]:
    """Print no message or warning that is in `said`, and add those that are printed.

    For several runs that read the same cells and would each describe them. Logs have all messages.
    """
    before, settings.said = settings.said, said
    try:
        yield
    finally:
        settings.said = before


def _again(text: str) -> bool:
    """Whether a message was printed before; remember it."""
    if settings.said is None:
        return False
    known = text in settings.said
    settings.said.add(text)
    return known


@contextmanager
def copied_to(stream: TextIO) -> Iterator[None]:
    """Also write every message, with its time, to a file while the block runs."""
    _copies.append(stream)
    try:
        yield
    finally:
        _copies.remove(stream)
        with suppress(OSError):
            stream.close()


def detail(text: str) -> None:
    """Print a message only with --verbose."""
    if settings.verbosity >= VERBOSE:
        _err(_visible(text))


def warn(text: str) -> None:
    """Print a warning, even with --quiet: a slower path, a setting without effect."""
    if settings.warned is not None:
        settings.warned(_visible(text))
        note(f"warning: {text}")
        return
    if _again(text):
        note(f"warning: {text}")
        return
    _err(_visible(text), "warning: ", "33")


def error(text: str, hint: str | None = None, *, code: int | None = None) -> None:
    """Print an error and how to fix it.

    `code` is the exit code of a command that ends here: with ``--json`` an error object goes to
    stdout. Words of hundreds of letters, as in the wrong kind of file, are shortened.
    """
    text, hint = (_ENDLESS.sub(r"\1...", words or "") for words in (text, hint))
    if settings.json and code is not None and not settings.printed:
        failed = {"error": {"message": text, "hint": hint or None, "exit_code": code}}
        with suppress(OSError):
            _out(json.dumps(failed, indent=2) + "\n")
    _err(_visible(text), "error: ", "1;31")
    if hint:
        _err(_visible(hint), "  hint: ", "36")


def result(data: Mapping[str, Any] | Sequence[Any], text: str) -> None:
    """Print the outcome of a command: `data` as JSON with --json, else `text`."""
    settings.printed = True
    if settings.results is not None:
        settings.results(plain(data))
        return
    if settings.json:
        _out(json.dumps(plain(data), indent=2, allow_nan=False) + "\n")
    elif text:
        _out(tables.fitted(_visible(text).rstrip("\n"), room()) + "\n")


@contextmanager
def printed_if_lost(data: Mapping[str, Any] | Sequence[Any], text: str) -> Iterator[None]:
    """Print a result that took long if its files cannot be written, as on a full disk."""
    try:
        yield
    except (UserError, OSError):
        result(data, text)
        raise


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], width: int | None = None) -> str:
    """Lay out rows under column headings; numbers are right-aligned.

    If a table is wider than the terminal, its widest column of words is wrapped; if that is not
    enough, each row becomes a block of lines, one per column. Without a terminal nothing is cut.

    Parameters
    ----------
    width
        Columns of the terminal; None: detected.
    """
    # Replace characters first, as one that becomes two letters would make the table too wide.
    body = [[_shown_on(sys.stdout, _cell(value)) for value in row] for row in rows]
    return tables.lay_out(body, list(columns), room() if width is None else width)


def room() -> int | None:
    """Return the columns of the terminal that results go to; None without a terminal."""
    width = os.environ.get("COLUMNS", "")
    return int(width) if width.isdigit() and int(width) > 0 else _columns(sys.stdout)


def _columns(stream: TextIO) -> int | None:
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: 1 cell, 2,000 cells."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class Progress:
    """Shows progress, rate and time left, as a bar on a terminal, else as lines."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.read = 0.0  # bytes
        self.note = ""
        self.started = time.monotonic()
        self._shown = -_LINE_EVERY  # the first line appears without delay
        self._live = _steers(sys.stderr) and settings.verbosity >= NORMAL
        self._silent = settings.verbosity < NORMAL
        self._drawn = False

    def advance(self, amount: float = 1, note: str = "", *, read: float = 0.0) -> None:
        """Count `amount` more units as done, with `read` bytes of a file.

        `note` replaces the text after the bar.
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
        """Remove the bar from the terminal."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "cells") -> Iterator[Progress]:
    """Show progress with rate and time left, for work that takes over two seconds."""
    bar = Progress(label, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def human(number: float) -> str:
    """Format a count briefly: 1,234 or 5.6 M."""
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def bytes_text(size: float) -> str:
    """Format a number of bytes briefly: 1.5 GiB."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << power:
            return f"{size / (1 << power):.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Format a duration briefly: 4 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def prepare() -> None:
    """Prepare a command: no result yet, and unprintable characters do not end it."""
    settings.printed = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard() -> None:
    """Discard further output to stdout: its reader is gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _out(text: str) -> None:
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise
    except OSError:
        discard()  # otherwise Python tries again at exit, and prints its own error
        raise


def _err(text: str, mark: str = "", colour: str = "") -> None:
    """Print text, fitted to the terminal, after a coloured mark."""
    plain_text = tables.fitted(mark + text, _columns(sys.stderr))
    with suppress(OSError):  # nobody reads stderr
        _write(sys.stderr, _paint(mark, colour) + plain_text[len(mark) :] + "\n")
    note(mark + text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(_shown_on(stream, text))
    stream.flush()


def _shown_on(stream: TextIO, text: str) -> str:
    """Replace characters that the terminal's encoding lacks by ASCII."""
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
    """Return a character, or its replacement if stdout cannot show it."""
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
    """Whether a stream is a terminal that supports escape codes."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("\n", " ")  # as in a label; a row is one line
