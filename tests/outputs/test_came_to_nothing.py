"""A failed run or pipeline leaves no folder, lock or manifest, and keeps what was there."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.test_every_end import PATIENTS, RUNS
from tests.support import in_this_process
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
