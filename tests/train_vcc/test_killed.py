"""`--folds` and `--sweep` while they run, killed, stopped, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vcell_train_vcc import report

from tests.support import PATIENCE, clean_environment
from vcell import console
from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.runs import Run, find_runs

RIDGE = ["--model", "ridge"]
SWEEP = ["--sweep", "2", "--sweep-over", "lr = {low = 1e-4, high = 1e-2, log = true}"]
NETWORK = ["--tokens", "32", "--max-steps", "24", "--validate-every", "8", "--set-size", "4"]
OFTEN = ["--checkpoint-every", "4", "--patience", "0"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=600, genes=80, perturbations=15, umis=800.0, seed=1).write(path)
    return path


def aged(*runs):
    """Make runs look as if they had been silent for an hour."""
    then = time.time() - 3600
    for one in runs:
        for name in ("events.jsonl", "run.json"):
            if (one.path / name).exists():
                os.utime(one.path / name, (then, then))


@pytest.mark.parametrize("words", [["--folds", "2"], SWEEP])
def test_it_stalls_only_when_the_part_that_runs_does(cells, tmp_path, monkeypatch, words):
    if words is SWEEP:
        pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())
    calm, seen = report.scored, []

    def looked_at(part, *more):
        whole = Run.open("latest")
        aged(whole)
        seen.append(whole.status())
        aged(whole, *whole.parts())
        seen.append(whole.status())
        ended = whole.parts()[:-1]  # nothing is written while the next part reads its cells
        part.update(status="done")
        aged(whole, *ended, part)
        seen.append(whole.status())
        part.update(status="running")
        return calm(part, *more)

    monkeypatch.setattr(report, "scored", looked_at)
    assert run(["train-vcc", str(cells), *RIDGE, *words]) == 0
    assert seen == ["running", "stalled", "running"] * 2
    whole = Run.open("latest")
    aged(whole, *whole.parts())
    assert whole.status() == "done"


class Training:
    """`vcell train-vcc` in a separate process."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vcell", "train-vcc", *map(str, words)],
            cwd=folder,
            env=clean_environment() | {"VCELL_CACHE": "cache", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def whole(self) -> Run | None:
        found = find_runs(self.folder / "runs")[0]
        return found[0] if found else None

    def in_second_part(self, step: int) -> Run:
        """Wait until the second part has reached a step."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.stderr.read()
            parts = whole.parts() if (whole := self.whole()) else []
            if len(parts) == 2 and (parts[1].last_step() or 0) >= step:
                return whole
            time.sleep(0.05)
        raise AssertionError("it never came so far")

    def end(self, signal_number: int | None = None) -> tuple[int, str]:
        if signal_number is not None:
            self.process.send_signal(signal_number)
        _, told = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--folds", "2"], SWEEP])
@pytest.mark.parametrize(
    ("how", "status", "code"),
    [(signal.SIGKILL, "crashed", -9), (signal.SIGTERM, "interrupted", 130)],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    cells, tmp_path, words, how, status, code
):
    if words is SWEEP:
        pytest.importorskip("optuna")
    (tmp_path / "calm").mkdir()
    (tmp_path / "cut").mkdir()
    command = [cells, *NETWORK, *OFTEN, *words]
    assert Training(tmp_path / "calm", *command).end()[0] == 0
    calm = find_runs(tmp_path / "calm" / "runs")[0][0]
    cut = Training(tmp_path / "cut", *command)
    whole = cut.in_second_part(step=6)
    assert whole.status() == "running"
    assert cut.end(how)[0] == code
    assert whole.status() == status
    assert [part.status() for part in whole.parts()] == ["done", status]
    ended, told = Training(tmp_path / "cut", "--resume", "latest").end()
    assert ended == 0, told
    assert "done already" in told
    assert whole.status() == "done"
    assert [part.status() for part in whole.parts()] == ["done", "done"]
    for one, other in zip(calm.parts(), whole.parts(), strict=True):
        found, wanted = other.meta["summary"]["held_out"], one.meta["summary"]["held_out"]
        assert found["transformer"] == pytest.approx(wanted["transformer"], rel=1e-4)
    name = "folds.csv" if "--folds" in words else "sweep.csv"
    assert (whole.path / name).read_text().count("\n") == (calm.path / name).read_text().count("\n")
