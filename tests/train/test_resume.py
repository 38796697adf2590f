"""A training that was cut short and resumed is the training that was not."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support import PATIENCE
from tests.train.conftest import Processes, differences, losses, tensors
from tests.train.toy import Toy, fit
from vcell.errors import UserError
from vcell.runs import Run

NewRun = Callable[[str], Run]
Start = Callable[..., Processes]

EVERYTHING = {
    "ema": 0.9,
    "precision": "fp16",
    "micro_batch": 5,
    "validate_every": 4,
    "checkpoint_every": 2,
    "max_steps": 20,
}


class PulledPlug(BaseException):
    """Ends a training in the middle of a step, as nothing in the loop expects."""


def cut_short(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Make the loss fail for good after so many calls."""
    whole, calls = Toy.loss, iter(range(10_000))

    def failing(self: Toy, model: Any, batch: Any) -> Any:
        if next(calls) >= after:
            raise PulledPlug
        return whole(self, model, batch)

    monkeypatch.setattr(Toy, "loss", failing)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"ema": 0.9}, id="averaged weights"),
        pytest.param({"precision": "fp16"}, id="fp16 with its loss scale"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"micro_batch": 5}, id="accumulation"),
        pytest.param({"schedule": "wsd", "clip_norm": 0.0}, id="wsd, no clipping"),
        pytest.param({"checkpoint_activations": True}, id="recomputed activations"),
        pytest.param({"batch_size": 60}, id="epochs that end inside batches"),
        pytest.param(EVERYTHING, id="everything"),
    ],
)
@pytest.mark.parametrize("read_ahead", [True, False])
def test_twenty_steps_are_ten_and_a_crash_and_ten(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], read_ahead: bool
) -> None:
    options = {"checkpoint_every": 5, "validate_every": 10, **options}
    whole, cut = new_run("whole"), new_run("cut")
    overflow = {"nan_at": (3,)} if options.get("precision") == "fp16" else {}
    result = fit(whole, options, read_ahead=read_ahead, **overflow)
    pieces = 4 if "micro_batch" in options else 1
    with monkeypatch.context() as patch:
        cut_short(patch, after=13 * pieces + pieces // 2)
        with pytest.raises(PulledPlug):
            fit(cut, options, read_ahead=read_ahead, **overflow)
    resumed = fit(cut, options, read_ahead=read_ahead)
    assert differences(whole, cut, 20) == {}
    assert losses(whole) == losses(cut)
    assert [step for step, _ in losses(cut)] == list(range(1, 21))
    states = [run.checkpoint(20).state for run in (whole, cut)]
    assert states[0] | {"seconds": 0} == states[1] | {"seconds": 0}
    assert (resumed.metrics, resumed.best_step) == (result.metrics, result.best_step)


def killed_until_done(
    run: Run, start: Start, options: dict[str, Any], task: dict[str, Any], kills: int
) -> int:
    """Kill a training at random moments, going on each time; return how many kills hit."""
    hits = 0
    chance = random.Random(0)
    for _ in range(kills):
        latest = max(run.checkpoints(), default=0)
        processes = start(run, options, task=task)
        wait_for_step(run, latest + chance.randrange(5))  # by steps: a busy machine is slow
        time.sleep(chance.uniform(0, task["slow"]))
        processes.kill(signal.SIGKILL)
        hits += processes.wait() == [-signal.SIGKILL]
        run.events()  # readable whatever the moment
    start(run, options, task=task).results()
    return hits


def wait_for_step(run: Run, step: int) -> None:
    end = time.monotonic() + PATIENCE
    while step and (run.last_step() or 0) < step:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_changes_nothing(
    new_run: NewRun, start: Start, kills: int
) -> None:
    steps = 10 * kills  # more than are seen before the last kill
    options = EVERYTHING | {"max_steps": steps}
    task = {"hidden": 64, "slow": 0.002}
    whole, cut = new_run("whole"), new_run("cut")
    start(whole, options, task=task).results()
    hits = killed_until_done(cut, start, options, task, kills)
    assert hits >= kills // 2  # while it trained
    assert differences(whole, cut, steps) == {}
    assert losses(whole) == losses(cut)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(new_run: NewRun) -> None:
    runs = [new_run(name) for name in ("a", "b", "c")]
    for run, seed in zip(runs, (3, 3, 4), strict=True):
        fit(run, {"seed": seed})
    assert differences(runs[0], runs[1], 20) == {}
    assert differences(runs[0], runs[2], 20) != {}


def test_validation_draws_no_random_numbers_from_training(new_run: NewRun) -> None:
    often, once = new_run("often"), new_run("once")
    fit(often, {"validate_every": 2})
    fit(once, {"validate_every": 0})
    assert differences(often, once, 20) == {}


def test_a_finished_run_has_nothing_left_to_do(new_run: NewRun) -> None:
    run = new_run("run")
    first = fit(run, {})
    before = tensors(run, 20)
    again = fit(run, {})
    assert (again.ended, again.step, again.metrics) == ("done", 20, first.metrics)
    after = tensors(run, 20)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_more_steps_go_on_and_the_new_curve_is_said(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("run")
    fit(run, {"max_steps": 10})
    assert fit(run, {"max_steps": 15}).step == 15
    assert "max-steps was 10 and is 15 from here on" in capsys.readouterr().err


def test_resuming_does_not_renew_patience(new_run: NewRun) -> None:
    run = new_run("run")
    options = {"validate_every": 1, "patience": 3}
    fit(run, options | {"max_steps": 3}, scores=((5.0, 6.0, 7.0),))
    result = fit(run, options, scores=((8.0, 9.0),))
    assert (result.ended, result.step, result.best_step) == ("early-stop", 4, 1)


@pytest.mark.parametrize(
    ("options", "task", "words"),
    [
        ({}, {"hidden": 9}, "the model changed: first.weight has shape (8, 6)"),
        ({}, {"dropout": 0.2}, "dropout was 0.1 in this run and is 0.2 now"),
        ({"seed": 1}, {}, "seed was 0 in this run and is 1 now"),
    ],
)
def test_another_model_data_or_seed_is_refused(
    new_run: NewRun, options: dict[str, Any], task: dict[str, Any], words: str
) -> None:
    run = new_run("run")
    fit(run, {"max_steps": 5})
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        fit(run, {"max_steps": 10, **options}, **task)


def test_a_damaged_checkpoint_is_passed_over_aloud(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = new_run("whole"), new_run("run")
    options = {"max_steps": 20, "validate_every": 5, "checkpoint_every": 5}
    fit(whole, options)
    fit(run, options | {"max_steps": 20})
    newest = run.checkpoint(20).path / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    fit(run, options)
    said = capsys.readouterr().err
    assert "model.safetensors: is damaged" in said
    assert "trying the checkpoint before it" in said
    assert differences(whole, run, 20) == {}


def test_no_sound_checkpoint_is_an_error_not_a_fresh_start(new_run: NewRun) -> None:
    run = new_run("run")
    fit(run, {"max_steps": 5})
    (run.checkpoint(5).path / "optim.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint of .* is whole"):
        fit(run, {"max_steps": 10})


def test_a_checkpoint_holds_no_pickle(new_run: NewRun) -> None:
    run = new_run("run")
    fit(run, {"ema": 0.9})
    names = {path.name for path in run.checkpoint(20).path.iterdir()}
    assert {"model.safetensors", "ema.safetensors", "optim.safetensors", "state.json"} <= names
    assert {name.rpartition(".")[2] for name in names} == {"safetensors", "json"}
