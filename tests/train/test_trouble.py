"""What goes wrong while training, and what people ask of it meanwhile."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.train.conftest import Processes, differences, losses, tensors
from tests.train.toy import fit
from vcell import console
from vcell.errors import RunFailed, UserError
from vcell.runs import Run

NewRun = Callable[[str], Run]
Start = Callable[..., Processes]
OTHERS = (signal.SIGINT, signal.SIGHUP)


def wait_for_step(run: Run, step: int) -> None:
    while len(losses(run)) < step:
        time.sleep(0.005)


# -- memory -------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_micro_batch_and_says_so(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout: the repeated step draws the random numbers a smaller micro-batch would have."""
    small, halved = new_run("small"), new_run("halved")
    fit(small, {"micro_batch": 4, "checkpoint_every": 10})
    capsys.readouterr()
    fit(halved, {"checkpoint_every": 10}, fits=5)
    said = capsys.readouterr().err
    assert "out of memory with 16 examples at a time: going on with 8" in said
    assert "out of memory with 8 examples at a time: going on with 4" in said
    assert said.count("out of memory") == 2  # remembered for the steps that follow
    assert differences(small, halved, 20) == {}
    assert [event["step"] for event in halved.events(["warn"])] == [0, 0]


def test_a_resumed_run_remembers_the_micro_batch_that_fits(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("run")
    fit(run, {"max_steps": 5}, fits=5)
    capsys.readouterr()
    fit(run, {"max_steps": 10}, fits=5)
    assert "out of memory" not in capsys.readouterr().err


def test_pieces_add_up_to_the_batch(new_run: NewRun) -> None:
    whole, pieces = new_run("whole"), new_run("pieces")
    fit(whole, {}, dropout=0.0)
    fit(pieces, {"micro_batch": 5}, dropout=0.0)
    assert max(differences(whole, pieces, 20).values()) < 1e-5


def test_out_of_memory_with_one_example_gives_up_with_advice(new_run: NewRun) -> None:
    with pytest.raises(RunFailed, match="with a single example") as failure:
        fit(new_run("run"), {}, fits=0)
    assert "--checkpoint-activations" in str(failure.value.hint)


# -- numbers ------------------------------------------------------------------------------------


def test_steps_without_finite_gradients_are_skipped_and_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("run")
    result = fit(run, {}, nan_at=(3, 7))
    assert result.ended == "done"
    said = capsys.readouterr().err
    assert "step 3 was skipped: loss nan, gradients not finite in first.weight" in said
    assert "step 7 was skipped" in said
    assert [event["loss"] is None for event in run.events(["metric"])].count(True) == 2
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_ten_bad_steps_in_a_row_end_the_run_and_keep_the_good_weights(new_run: NewRun) -> None:
    run, good = new_run("run"), new_run("good")
    options = {"schedule": "constant", "warmup": 0.0, "checkpoint_every": 1}
    with pytest.raises(RunFailed, match="steps 6 to 15 were all skipped") as failure:
        fit(run, options, nan_at=tuple(range(6, 40)))
    assert "weights are those after step 5" in failure.value.message
    assert "lower lr" in str(failure.value.hint)
    fit(good, {**options, "max_steps": 5})
    kept, expected = tensors(run, 14), tensors(good, 5)
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


# -- requests -----------------------------------------------------------------------------------


def test_stop_ends_after_a_step_with_a_checkpoint_and_can_be_resumed(
    new_run: NewRun, start: Start
) -> None:
    run = new_run("run")
    processes = start(run, {"max_steps": 500}, task={"slow": 0.005})
    wait_for_step(run, 3)
    run.request("stop")
    (result,) = processes.results()
    assert result["ended"] == "stopped"
    assert run.checkpoint().step == result["step"] < 500
    assert run.requests() == set()
    assert Run.open(run.path).status() == "interrupted"
    options = {"max_steps": result["step"] + 3}
    assert start(run, options).results()[0]["ended"] == "done"


def test_checkpoint_and_pause_are_served_between_steps(new_run: NewRun, start: Start) -> None:
    run = new_run("run")
    processes = start(run, {"max_steps": 200, "checkpoint_every": 0}, task={"slow": 0.005})
    wait_for_step(run, 3)
    run.request("checkpoint")
    while "checkpoint" in run.requests() or not run.checkpoints():
        time.sleep(0.005)
    run.request("pause")
    while not run.events(["phase"]):
        time.sleep(0.005)
    paused = len(losses(run))
    time.sleep(0.4)
    assert len(losses(run)) == paused
    run.clear("pause")
    assert processes.results()[0]["step"] == 200
    names = [event["name"] for event in run.events(["phase"])]
    assert names == ["paused", "training"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(s, marks=pytest.mark.slow) for s in OTHERS)]
)
def test_a_signal_ends_cleanly_with_a_checkpoint(
    new_run: NewRun, start: Start, number: signal.Signals
) -> None:
    whole, cut = new_run("whole"), new_run("cut")
    options = {"max_steps": 80, "checkpoint_every": 0}
    start(whole, options).results()
    processes = start(cut, options, task={"slow": 0.005})
    wait_for_step(cut, 5)
    processes.kill(number)
    (result,) = processes.results()
    assert result["ended"] == "interrupted"
    assert Run.open(cut.path).status() == "interrupted"
    start(cut, options).results()
    assert differences(whole, cut, 80) == {}


def test_stopping_early_keeps_the_best(new_run: NewRun) -> None:
    run = new_run("run")
    options = {"validate_every": 1, "patience": 3, "max_steps": 20}
    result = fit(run, options, scores=((5.0, 4.0, math.nan, 4.5, 6.0, 1.0),))
    assert (result.ended, result.step, result.best, result.best_step) == ("early-stop", 5, 4.0, 2)
    assert run.checkpoint("best").step == 2


# -- what is told -------------------------------------------------------------------------------


def test_lines_where_there_is_no_terminal_and_silence_where_asked(
    new_run: NewRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"validate_every": 10}
    fit(new_run("talking"), options)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("step 10: mse ")
    assert "(best " in said[1]
    monkeypatch.setattr(console.settings, "json", True)
    fit(new_run("json"), options)
    monkeypatch.setattr(console.settings, "json", False)
    monkeypatch.setattr(console.settings, "verbosity", console.QUIET)
    fit(new_run("quiet"), options)
    captured = capsys.readouterr()
    assert "step" not in captured.err + captured.out


def test_a_table_on_a_terminal(
    new_run: NewRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fit(new_run("run"), {"validate_every": 5}, scores=((4.0, 3.0, 5.0, 2.0),))
    table = capsys.readouterr().err.split("step 20")[1]
    assert "now" in table
    assert "at best" in table
    assert any(
        line.split()[:3] == ["mse", "2", "2"] and line.endswith("▆▃█▁")
        for line in table.splitlines()
    )


def test_events_tell_each_step(new_run: NewRun) -> None:
    run = new_run("run")
    fit(run, {"validate_every": 10})
    steps = run.events(["metric"])
    assert [event["step"] for event in steps] == list(range(1, 21))
    for event in steps:
        assert {"loss", "mae", "lr", "grad_norm", "examples_per_s", "data_wait"} <= event.keys()
        assert 0 <= event["data_wait"] <= 1
    evals = run.events(["eval"])
    assert (evals[0]["step"], evals[0]["best"]) == (10, True)
    assert [event["step"] for event in run.events(["ckpt"])] == [10, 20]


# -- torch's own troubles -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiler_that_fails_is_said_aloud_and_done_without(
    new_run: NewRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    torch._dynamo.reset()
    plain, compiled = new_run("plain"), new_run("compiled")
    fit(plain, {"max_steps": 3})
    fit(compiled, {"max_steps": 3, "compile": True})
    assert "torch.compile failed, going on without it, slower" in capsys.readouterr().err
    assert differences(plain, compiled, 3) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_model_learns_the_same(new_run: NewRun) -> None:
    torch._dynamo.reset()
    plain, compiled = new_run("plain"), new_run("compiled")
    fit(plain, {"max_steps": 3}, dropout=0.0)
    fit(compiled, {"max_steps": 3, "compile": True}, dropout=0.0)
    assert max(differences(plain, compiled, 3).values(), default=0.0) < 1e-5


def test_recomputing_activations_changes_nothing(new_run: NewRun) -> None:
    kept, recomputed = new_run("kept"), new_run("recomputed")
    fit(kept, {})
    fit(recomputed, {"checkpoint_activations": True})
    assert differences(kept, recomputed, 20) == {}


def test_tf32_on_a_cpu_is_said_to_have_no_effect(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(new_run("run"), {"precision": "tf32", "max_steps": 1})
    assert "tf32 has no effect on a CPU" in capsys.readouterr().err


def test_a_missing_sink_is_refused_before_training(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="wandb is not installed") as failure:
        fit(new_run("run"), {"sinks": ("wandb",)})
    assert failure.value.hint == "pip install 'vcell[wandb]'"


def test_bf16_and_fp16_learn_nearly_what_fp32_does(new_run: NewRun) -> None:
    options: dict[str, Any] = {"max_steps": 30, "schedule": "constant"}
    scores = {
        name: fit(new_run(name), {**options, "precision": name}, dropout=0.0).metrics["mse"]
        for name in ("fp32", "bf16", "fp16")
    }
    assert scores["bf16"] == pytest.approx(scores["fp32"], rel=0.1)
    assert scores["fp16"] == pytest.approx(scores["fp32"], rel=0.05)
