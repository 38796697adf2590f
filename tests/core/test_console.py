"""Messages, tables, progress and results as people and pipes see them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import PATIENCE
from vcell import console


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch):
    monkeypatch.setattr(console, "settings", console.Settings())


def test_tables_align_numbers_right_and_words_left():
    text = console.table([("MYC", 3, 0.25), ("A", 120, None)], ["gene", "cells", "score"])
    assert text.splitlines() == [
        "gene  cells  score",
        "────  ─────  ─────",
        "MYC       3   0.25",
        "A       120      –",
    ]


def test_an_empty_table_still_has_its_heads():
    assert console.table([], ["a", "b"]).splitlines() == ["a  b", "─  ─"]


def test_results_are_json_that_any_reader_accepts(capsys):
    console.settings.json = True
    data = {
        "x": np.float64("nan"),
        "y": np.arange(2),
        "p": Path("a"),
        "t": (1, {2}),
        "i": np.int8(3),
    }
    console.result(data, "for people")
    out = json.loads(capsys.readouterr().out)
    assert out == {"x": None, "y": [0, 1], "p": "a", "t": [1, [2]], "i": 3}


def test_results_go_to_stdout_and_everything_else_to_stderr(capsys):
    console.say("working")
    console.warn("slow path")
    console.result({}, "42")
    assert capsys.readouterr() == ("42\n", "working\nwarning: slow path\n")


def test_quiet_keeps_warnings_and_drops_the_rest(capsys):
    console.settings.verbosity = console.QUIET
    console.say("working")
    console.detail("more")
    console.warn("slow path")
    assert capsys.readouterr().err == "warning: slow path\n"


SLOW = """
from vcell import console
clock = [0.0]  # seconds; a real clock would depend on how busy the machine is
console.time.monotonic = lambda: clock[0]
console._SHOW_AFTER = 0.05
console._LINE_EVERY = 0.05
with console.progress("reading", total=10, unit="cells") as bar:
    for _ in range(10):
        clock[0] += 0.02
        bar.advance(1)
"""


def test_progress_is_lines_where_there_is_no_terminal():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert 1 <= len(done.stderr.splitlines()) <= 9
    assert "reading" in done.stderr
    assert "left" in done.stderr
    assert "\r" not in done.stderr


def test_bytes_read_are_shown_as_a_rate_beside_the_units(monkeypatch):
    monkeypatch.setattr(console.time, "monotonic", lambda: 100.0)
    bar = console.Progress("reading", 1000, "cells")
    bar.started = 90.0
    bar.advance(250, read=5e8)
    assert bar._text(100.0).endswith("250/1,000 cells, 25/s, 50 MB/s, 30 s left")


def test_progress_is_one_line_on_a_terminal_and_leaves_it_clean():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SLOW], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 1024):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=PATIENCE) == 0
    text = shown.decode()
    assert "━" in text
    assert "\n" not in text
    assert text.endswith("\r\x1b[K")


def test_what_takes_no_time_shows_no_progress(capsys):
    with console.progress("quick", total=3) as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(3, "3"), (1234, "1,234"), (5.6e6, "5.6 M"), (0.25, "0.25"), (2e9, "2 G")]
)
def test_counts(number, text):
    assert console.human(number) == text


def test_names_from_files_cannot_steer_the_terminal(capsys):
    name = "GENE\x1b]0;owned\x07\r\x9b2J"
    console.say(name)
    console.error(name, hint=name)
    console.result({"gene": name}, console.table([(name, "a\tb")], ["gene", "more"]))
    said = capsys.readouterr()
    assert not set("\x1b\x07\r\x9b") & set(said.err + said.out)
    assert "GENE\ufffd]0;owned" in said.out
    assert "a\tb" in said.out


def test_a_name_of_two_lines_does_not_break_a_table():
    shown = console.table([("C\nD", 3), ("E", 4)], ("label", "cells"))
    assert shown.splitlines()[2:] == ["C D        3", "E          4"]
