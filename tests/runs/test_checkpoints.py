"""Checkpoints are whole and verified, and old ones are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.test_run_directory import new, put
from vcell.errors import UserError


def test_a_checkpoint_is_whole_and_verified(tmp_path):
    run = new(tmp_path)
    path = run.save_checkpoint(5, put("weights"), metric=0.5)
    assert (path / "model.txt").read_text() == "weights"
    checkpoint = run.checkpoint("latest")
    assert (checkpoint.step, checkpoint.metric) == (5, 0.5)
    checkpoint.verify()
    (path / "model.txt").write_text("weighty")
    with pytest.raises(UserError, match=r"model\.txt: is damaged"):
        checkpoint.verify()
    (path / "model.txt").unlink()
    with pytest.raises(UserError, match="is missing"):
        checkpoint.verify()


def test_a_hostile_manifest_cannot_point_outside(tmp_path):
    run = new(tmp_path)
    path = run.save_checkpoint(1, put("x"))
    (path / "checkpoint.json").write_text('{"step": 1, "files": {"../../run.json": "00"}}')
    with pytest.raises(UserError, match="outside"):
        run.checkpoint(1).verify()


def test_the_best_and_the_last_two_are_kept(tmp_path):
    run = new(tmp_path)
    for step, metric in enumerate([0.2, 0.5, 0.4, 0.9], start=1):
        run.save_checkpoint(step, put(str(step)), metric=metric)
    assert run.checkpoints() == [1, 3, 4]
    assert run.checkpoint("best").step == 1
    assert run.checkpoint("latest").step == 4
    for step in (5, 6):
        run.save_checkpoint(step, put(str(step)), metric=0.95, keep_best=2)
    assert run.checkpoints() == [1, 3, 5, 6], "the two best are 1 and 3, the last two 5 and 6"


def test_more_can_be_better(tmp_path):
    run = new(tmp_path)
    for step, metric in enumerate([0.5, 0.9, 0.4], start=1):
        run.save_checkpoint(step, put(str(step)), metric=metric, higher_is_better=True)
    assert run.checkpoint("best").step == 2


def test_checkpoints_of_a_branch_that_was_left_disappear(tmp_path):
    run = new(tmp_path)
    run.save_checkpoint(10, put("a"), metric=0.1)
    run.save_checkpoint(20, put("b"), metric=0.2)
    run.save_checkpoint(15, put("c"), metric=0.3)  # resumed at 10 because 20 was damaged, say
    assert run.checkpoints() == [10, 15]
    assert run.checkpoint("latest").step == 15


def test_saving_a_step_again_replaces_it(tmp_path):
    run = new(tmp_path)
    run.save_checkpoint(1, put("old"))
    run.save_checkpoint(1, put("new"))
    assert (run.checkpoint(1).path / "model.txt").read_text() == "new"
    run.checkpoint(1).verify()


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(tmp_path):
    run = new(tmp_path)
    run.save_checkpoint(1, put("good"))

    def fail(folder: Path) -> None:
        (folder / "model.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint(2, fail)
    assert run.checkpoints() == [1]
    assert sorted(p.name for p in (run.path / "ckpt").iterdir()) == ["latest", "step-000001"]


def test_a_missing_checkpoint_is_explained(tmp_path):
    run = new(tmp_path)
    with pytest.raises(UserError, match="no checkpoint yet"):
        run.checkpoint("latest")
    run.save_checkpoint(3, put("x"))
    with pytest.raises(UserError, match="no checkpoint of step 4; it has 3"):
        run.checkpoint(4)
    with pytest.raises(UserError, match="latest, best or a step"):
        run.checkpoint("first")
