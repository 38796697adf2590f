"""Every command that writes, in a separate process: over ssh, and ended by signals midway."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.journeys.terminal import on_terminal
from tests.outputs.test_every_end import GOES_ON, STARTS, WRITES, left, run_of
from tests.support import PATIENCE, clean_environment, shortly

if TYPE_CHECKING:
    from pathlib import Path

BY_DEFAULT = ("graph-profile output",)


def words_of(name: str, folder: Path, place: Path) -> list[str]:
    return [run_of(word, folder).replace("{}", str(place / "x")) for word in WRITES[name]]


@pytest.mark.parametrize("columns", shortly([40, 80], 80))
@pytest.mark.parametrize("name", shortly(WRITES, *BY_DEFAULT))
def test_a_plain_terminal_gets_plain_short_lines(folder, tmp_path, name, columns):
    plain = {"TERM": "dumb", "NO_COLOR": "", "PYTHONIOENCODING": "ascii"}
    words = words_of(name, folder, tmp_path)
    shown = on_terminal(*words, cwd=folder, columns=columns, **plain)
    assert shown.code == 0, shown.plain
    assert "\x1b" not in shown.text
    assert shown.text.isascii()
    names = [str(tmp_path), str(folder)]  # a path is not broken
    long = [line for line in shown.plain.split("\n") if len(line) > columns]
    assert [line for line in long if not any(one in line for one in names)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "how"), [(0.3, signal.SIGINT), (0.5, signal.SIGTERM), (0.7, signal.SIGINT)]
)
@pytest.mark.parametrize("name", WRITES)
def test_a_signal_prints_one_word_and_leaves_nothing(folder, tmp_path, name, share, how):
    """Stopped at a share of its time, it has ended or says so, and can be done again."""
    command = [sys.executable, "-m", "vcell", *words_of(name, folder, tmp_path)]
    options = {"cwd": folder, "env": clean_environment(), "text": True}

    def done() -> float:
        begun = time.monotonic()
        ran = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, **options)
        assert ran.returncode == 0, ran.stderr
        return time.monotonic() - begun

    took = done()
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0, **options
    )
    time.sleep(share * took)
    process.send_signal(how)
    _, told = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in told
    if process.returncode == 0:
        pytest.skip("it was quicker this time")
    if "interrupted" not in told:  # Python itself had only just begun
        assert process.returncode in {130, -how}
    assert not list(tmp_path.rglob("*.tmp-*"))
    if name not in GOES_ON | set(STARTS):
        assert left(tmp_path) == []
    else:
        done()
