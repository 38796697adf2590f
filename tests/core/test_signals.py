"""A signal ends the work wherever it comes, and whatever else fails because of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import clean_environment
from vcell import cli

LOST = """
import os, signal, sys, time
from vcell.signals import ended_by_signals

class Finaliser:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)

try:
    with ended_by_signals():
        Finaliser()
        time.sleep(60)
except KeyboardInterrupt as error:
    print("ended by", error.args)
"""


@pytest.mark.parametrize(("name", "told"), [("SIGTERM", "('SIGTERM',)"), ("SIGINT", "()")])
def test_a_signal_in_a_finaliser_is_not_lost(name, told):
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(name=name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ended by {told}\n", "")


SLOW = """
import threading
start, slow = threading.Timer.start, []

def started_slowly(timer):
    start(timer)
    if not slow:
        slow.append(timer)
        timer.join()  # as on a busy machine: the signal is there before this returns

threading.Timer.start = started_slowly
"""


def test_a_signal_is_not_lost_where_threads_start_slowly():
    done = subprocess.run(
        [sys.executable, "-c", SLOW + LOST.format(name="SIGTERM")], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended by ('SIGTERM',)\n", "")


#: In place of the first library that vcell imports: a signal while dataclasses are made, for one.
LOADING = """
import os, signal
exec("os.kill(os.getpid(), signal.{}); [None for _ in range(10**9)]")
"""


@pytest.mark.parametrize(
    ("name", "told"), [("SIGTERM", " by SIGTERM"), ("SIGHUP", " by SIGHUP"), ("SIGINT", "")]
)
def test_a_signal_while_vcell_is_loaded_is_told(tmp_path, name, told):
    (tmp_path / "click.py").write_text(LOADING.format(name))
    done = subprocess.run(
        [sys.executable, "-m", "vcell", "doctor"], capture_output=True, text=True, check=False,
        env=clean_environment() | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, f"error: interrupted{told}\n")


def test_an_interrupt_of_code_made_from_text_ends_with_the_exit_code(tmp_path):
    (tmp_path / "h5py.py").write_text(LOADING.format("SIGTERM"))  # is loaded by the command
    (tmp_path / "cells.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n")
    words = [sys.executable, "-m", "vcell", "inspect", tmp_path / "cells.h5ad"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False,
        env=clean_environment() | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "error: interrupted by SIGTERM"


def test_an_error_of_what_was_interrupted_does_not_hide_the_interrupt(monkeypatch, capsys):
    class HalfOpen:
        def close(self):  # its frame is held by its own error alone
            raise ValueError("Can't close the file")

        def __del__(self):
            raise ValueError("seek of closed file")

    def main(*_, **__):
        archive = HalfOpen()
        try:
            raise KeyboardInterrupt("SIGTERM")
        finally:
            archive.close()

    monkeypatch.setattr(cli.cli, "main", main)
    assert cli.run(["doctor"]) == 130
    assert capsys.readouterr().err == "error: interrupted by SIGTERM\n"
