"""A failed run or pipeline leaves no folder, lock or manifest, and keeps what was there."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.test_every_end import PATIENTS, RUNS, STARTS, WRITES, run_of
from tests.support import clean_environment, in_this_process, shortly
from vcell.errors import UserError
from vcell.pipeline.manifest import FILE, Manifest, Stage
from vcell.runs import Run
from vcell.train.many import ended_well


@pytest.fixture
def place(folder, tmp_path):
    for name in ("cells.h5ad", "patients.h5ad"):
        shutil.copy(folder / name, tmp_path)
    return tmp_path


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["train-vcc", "train-gmvae"])
def test_a_run_that_could_not_begin(place, monkeypatch, name):
    def full(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = everything(place)
    monkeypatch.setattr(Run, "save_file", full)
    ran = in_this_process((*RUNS[name], "--runs", "some/where/runs"), place)
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    assert everything(place) == before


_KILLED = """
import os
from vcell.runs import Run
Run.save_file = lambda *_args, **_more: os._exit(137)
from vcell.cli import main
main()
"""


@pytest.mark.parametrize("name", shortly(STARTS, "train-bulk", "train-vcc"))
def test_what_a_kill_leaves_of_a_run_that_is_being_made_is_no_run(folder, tmp_path, name):
    words = [run_of(word, folder).replace("{}", str(tmp_path / "runs")) for word in WRITES[name]]
    if name == "train-graph":  # the run that holds the folds is made before
        at = words.index("--folds")
        words[at : at + 2] = ["--fold", "random"]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, *words], cwd=folder, env=clean_environment(),
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 137, done.stderr
    (left,) = (tmp_path / "runs").iterdir()
    assert in_this_process(("runs", "list", "--json"), tmp_path).json == {
        "runs": [], "problems": []
    }  # fmt: skip
    assert (
        "there are no runs" in in_this_process((*name.split(), "--resume", "latest"), tmp_path).err
    )
    Run.create(tmp_path / "runs", "toy")
    assert not left.exists()


def test_a_run_that_another_process_is_making_stays(tmp_path):
    made = []
    run = Run.create(tmp_path, "toy", begin=lambda run: made.append(Run.create(tmp_path, "other")))
    assert [path.name for path in sorted(tmp_path.iterdir())] == sorted([run.name, made[0].name])
    assert {path.name for path in run.path.iterdir()} == {"ckpt", "control", "logs", "run.json"}


def test_a_run_whose_work_was_refused_before_a_part_began(tmp_path):
    (tmp_path / "others").mkdir()
    with pytest.raises(UserError), ended_well(Run.create(tmp_path / "a/runs", "toy"), new=True):
        raise UserError("no such cells")
    assert everything(tmp_path) == ["others"]
    earlier = Run.create(tmp_path / "runs", "toy")
    with pytest.raises(UserError), ended_well(Run.create(tmp_path / "runs", "toy"), new=True):
        raise UserError("no such cells")
    with pytest.raises(UserError), ended_well(earlier, new=False):
        raise UserError("its cells moved")
    assert everything(tmp_path / "runs")[0] == earlier.name
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [earlier.name]
    assert Run.open(earlier.path).status() == "failed"


def test_a_pipeline_whose_first_stage_is_refused(place):
    before = everything(place)
    words = ("pipeline", "bulk", "--cells", *PATIENTS, "-o")
    ran = in_this_process((*words, "some/where/out"), place)
    assert ran.code == 2
    assert "QC leaves no cell" in ran.err
    assert everything(place) == before
    (place / "mine").mkdir()
    (place / "mine" / "notes.txt").write_text("mine")
    assert in_this_process((*words, "mine"), place).code == 2
    assert everything(place) == sorted([*before, "mine", "mine/notes.txt"])


def test_a_pipeline_refused_later_keeps_what_it_has(tmp_path):
    def refused() -> tuple[dict[str, object], list[Path]]:
        raise UserError("too few patients")

    def stage(name: str, work: Callable[[], Any]) -> Stage:
        return Stage(name=name, title=name, inputs=[], settings={}, work=work)

    def run() -> None:
        book = Manifest.open(tmp_path / "out")
        with book.locked():
            book.run(stage("one", lambda: ({}, [])))
            book.run(stage("two", refused))

    for _ in range(2):
        with pytest.raises(UserError, match="too few"):
            run()
        assert (tmp_path / "out" / FILE).is_file()
        assert list(Manifest.open(tmp_path / "out").stages) == ["one"]
