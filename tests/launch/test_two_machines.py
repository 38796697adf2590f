"""Two machines with a common folder: one dies, and the job goes on with other numbers of ranks.

A machine here is a launcher in a process session of its own, with a host name of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, clean_environment
from vcell.runs import Run, Tail

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


def machine(cwd: Path, host: str, *words: str) -> subprocess.Popen[str]:
    paths = f"{HERE}{os.pathsep}{REPOSITORY}"
    return subprocess.Popen(
        [sys.executable, HERE / "run_it.py", *words],
        cwd=cwd,
        env=clean_environment()
        | {"PYTHONPATH": paths, "HOST_OF_TESTS": host, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def crash(process: subprocess.Popen[str]) -> None:
    """Lose a machine: the launcher and its processes at once, without a word."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    for pid in {*found, *children, str(process.pid)}:
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.dist
@pytest.mark.parametrize(
    ("lost", "ranks"), [("second", 1), pytest.param("first", 2, marks=pytest.mark.slow)]
)
def test_a_job_goes_on_without_the_machine_it_lost(tmp_path: Path, lost: str, ranks: int) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = ("train", "device=cpu", "nodes=2", f"rdzv=localhost:{port}", "job=pair")
    first = machine(tmp_path, "alpha", *words)
    folder = tmp_path / "runs" / "pair"
    until((folder / "run.json").is_file)
    second = machine(tmp_path, "beta", *words)
    until(lambda: len(checkpoints(folder)) >= 2)
    dead, left = (second, first) if lost == "second" else (first, second)
    crash(dead)
    dead.communicate(timeout=PATIENCE)
    _, said = left.communicate(timeout=PATIENCE)
    assert left.returncode == 1
    assert "bug in vcell" not in said
    assert "gone or no longer answers" in said
    meta = Run.open(folder).meta
    assert (meta["world_size"], meta["machine"]["host"]) == (2, "alpha")
    assert meta["process"]["host"] == "alpha"
    reached = max(checkpoints(folder))

    again = machine(tmp_path, "alpha", "train", "device=cpu", f"procs={ranks}", "resume=runs/pair")
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    run = Run.open(folder)
    assert (run.status(), run.meta["world_size"]) == ("done", ranks)
    events = Tail(folder / "events.jsonl").read()
    (resumed,) = [event for event in events if event["kind"] == "resume"]
    assert resumed["step"] >= reached - 4
    assert (resumed["world_size"], run.checkpoint("latest").step) == (ranks, 60)


def checkpoints(folder: Path) -> list[int]:
    try:
        return sorted(Run.open(folder).checkpoints())
    except Exception:  # noqa: BLE001 - it is being made
        return []


def until(condition, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
