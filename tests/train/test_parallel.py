"""Two processes are one: the same loss, the same weights, the same decisions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import Processes, differences, losses, tensors
from tests.train.toy import fit
from vcell.launch import Plan, launch
from vcell.runs import Run, Tail

NewRun = Callable[[str], Run]
Start = Callable[..., Processes]
PLAIN = {"dropout": 0.0}  # each rank draws its own dropout


def distance(a: Run, b: Run) -> float:
    return max(differences(a, b, 20).values(), default=0.0)


@pytest.mark.dist
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"parallel": "ddp"}, id="ddp"),
        pytest.param({"batch_size": 15, "micro_batch": 3}, id="ddp, unequal shares in pieces"),
        pytest.param({"parallel": "fsdp"}, id="fsdp", marks=pytest.mark.slow),
        pytest.param(
            {"parallel": "fsdp", "batch_size": 15, "micro_batch": 7},
            id="fsdp, unequal shares in pieces",
        ),
    ],
)
def test_two_processes_equal_one(new_run: NewRun, start: Start, options: dict[str, Any]) -> None:
    """Averaged weights and AdamW's moments included, at the same global batch."""
    one, two = new_run("one"), new_run("two")
    options = {"ema": 0.9, "validate_every": 5, **options}
    alone = fit(one, options, **PLAIN)
    ranks = start(two, options, ranks=2, task=PLAIN).results()
    assert distance(one, two) < 1e-5
    for (step, single), (_, double) in zip(losses(one), losses(two), strict=True):
        assert double == pytest.approx(single, abs=1e-5), step
    assert ranks[0] | {"seconds": 0} == ranks[1] | {"seconds": 0}
    assert ranks[0]["metrics"] == pytest.approx(alone.metrics, abs=1e-5)


@pytest.mark.dist
def test_two_processes_in_fp16_agree_on_the_loss_scale(new_run: NewRun, start: Start) -> None:
    """Half precision rounds differently in other pieces; whether a step counts must not differ."""
    one, two = new_run("one"), new_run("two")
    options = {"precision": "fp16"}
    task = {**PLAIN, "nan_at": [3, 4]}
    fit(one, options, **task)
    start(two, options, ranks=2, task=task).results()
    scalers = [run.checkpoint().state["scaler"] for run in (one, two)]
    assert scalers == [{"scale": 2.0**14, "quiet": 16}] * 2
    for (_, single), (_, double) in zip(losses(one), losses(two), strict=True):
        assert double == pytest.approx(single, abs=0.01, nan_ok=True)


@pytest.mark.dist
def test_a_run_of_one_process_goes_on_in_two_and_back(new_run: NewRun, start: Start) -> None:
    whole, moved = new_run("whole"), new_run("moved")
    fit(whole, {"max_steps": 20, "schedule": "constant"}, **PLAIN)
    for ranks, steps, parallel in ((1, 7, "ddp"), (2, 14, "fsdp"), (1, 20, "ddp")):
        options = {"max_steps": steps, "schedule": "constant", "warmup": 0.0, "parallel": parallel}
        start(moved, options, ranks=ranks, task=PLAIN).results()
    again = new_run("again")
    fit(again, {"max_steps": 20, "schedule": "constant", "warmup": 0.0}, **PLAIN)
    assert distance(again, moved) < 1e-5


@pytest.mark.dist
def test_ranks_stop_early_together_though_they_measure_differently(
    new_run: NewRun, start: Start
) -> None:
    """Rank 0 gets worse after its second validation while rank 1 would go on improving."""
    run = new_run("run")
    task = {"scores": [[3, 1, 2, 2, 2, 2, 2, 2, 2, 2], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]}
    options = {"validate_every": 2, "patience": 3}
    first, second = start(run, options, ranks=2, task=task).results()
    assert (first["ended"], first["step"], first["best_step"]) == ("early-stop", 10, 4)
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert run.checkpoint("best").step == 4


@pytest.mark.dist
def test_one_rank_out_of_memory_halves_alone_and_the_result_is_the_same(
    new_run: NewRun, start: Start
) -> None:
    one, two = new_run("one"), new_run("two")
    fit(one, {}, **PLAIN)
    processes = start(two, {}, ranks=2, task={**PLAIN, "fits": 5})
    processes.results()
    assert distance(one, two) < 1e-5
    assert "out of memory with 8 examples at a time: going on with 4" in processes.messages()
    warned = Tail(two.path / "rank-1.jsonl").read()
    assert [e["step"] for e in warned if e["kind"] == "warn"] == [0]


@pytest.mark.dist
def test_a_parameter_without_a_gradient_is_told_and_waited_for_by_nobody(
    new_run: NewRun, start: Start
) -> None:
    one, two = new_run("one"), new_run("two")
    fit(one, {}, idle="always", **PLAIN)
    processes = start(two, {}, ranks=2, task={**PLAIN, "idle": "always"})
    processes.results()
    assert distance(one, two) < 1e-5
    assert processes.messages().count("the loss does not depend on idle.weight") == 2


@pytest.mark.dist
def test_a_parameter_that_takes_part_on_one_rank_only_is_averaged(
    new_run: NewRun, start: Start
) -> None:
    run = new_run("run")
    start(run, {}, ranks=2, task={**PLAIN, "idle": "on one rank"}).results()
    assert "optim:exp_avg:idle.weight" in tensors(run, 20)


@pytest.mark.dist
def test_a_parameter_that_loses_its_gradient_on_the_way_ends_the_run_in_words(
    new_run: NewRun, start: Start
) -> None:
    processes = start(new_run("run"), {}, ranks=2, task={**PLAIN, "idle": "later"})
    assert set(processes.wait()) == {1}
    assert "ddp never received it" in processes.messages()


@pytest.mark.dist
def test_sigterm_to_one_rank_ends_all_with_a_checkpoint_to_go_on_from(
    new_run: NewRun, start: Start
) -> None:
    whole, cut = new_run("whole"), new_run("cut")
    options = {"max_steps": 60, "checkpoint_every": 0, "validate_every": 0}
    start(whole, options, ranks=2, task=PLAIN).results()
    processes = start(cut, options, ranks=2, task={**PLAIN, "slow": 0.02})
    while not losses(cut):
        time.sleep(0.01)
    processes.kill(signal.SIGTERM, rank=1)
    results = processes.results()
    assert {result["ended"] for result in results} == {"interrupted"}
    step = results[0]["step"]
    assert cut.checkpoint().step == step < 60
    assert Run.open(cut.path).status() == "interrupted"
    start(cut, options, ranks=2, task=PLAIN).results()
    assert differences(whole, cut, 60) == {}


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torchrun's API leaves log files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_launchers_two_processes_equal_its_one(tmp_path: Path) -> None:
    runs = []
    for procs in (1, 2):
        run = Run.create(tmp_path, "train-toy", config={"ema": 0.9, "validate_every": 5})
        launch("tests.train.toy:work", run, Plan("cpu", procs))
        assert Run.open(run.path).status() == "done"
        runs.append(run)
    assert distance(*runs) < 1e-5
    kinds = [event["kind"] for event in Tail(runs[1].path / "rank-1.jsonl").read()]
    assert kinds.count("span") == 20


@pytest.mark.dist
def test_each_rank_tells_where_its_time_went(new_run: NewRun, start: Start) -> None:
    run = new_run("run")
    start(run, {}, ranks=2).results()
    for rank in (0, 1):
        events = Tail(run.path / f"rank-{rank}.jsonl").read()
        spans = [event for event in events if event["kind"] == "span"]
        assert [span["step"] for span in spans] == list(range(1, 21))
        for span in spans:
            parts = [span[name] for name in ("data", "h2d", "forward", "backward", "optimiser")]
            assert min(parts) >= 0
            assert sum(parts) <= span["seconds"]
            assert span["examples"] == 8
