"""The parts of the loop by themselves: schedules, averages, streams, batches, sinks."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.train.toy import fit
from vcell.errors import UserError
from vcell.runs import Run
from vcell.train import TrainOptions, batch
from vcell.train.optim import Averaged, build_optimizer, learning_rate
from vcell.train.state import load_weights, named_tensors
from vcell.train.stream import ReadAhead, ShuffledBatches
from vcell.train.task import Place

NewRun = Callable[[str], Run]


# -- learning rates -----------------------------------------------------------------------------


def rates(**options: object) -> list[float]:
    settings = TrainOptions(max_steps=100, lr=1.0, **options)  # type: ignore[arg-type]
    return [learning_rate(step, settings) for step in range(100)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_every_schedule_rises_linearly_to_the_peak(schedule: str) -> None:
    curve = rates(schedule=schedule, warmup=0.1)
    assert curve[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(curve) == curve[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(curve[10:]))


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [
        ("cosine", (1 + math.cos(math.pi * 40 / 90)) / 2, (1 + math.cos(math.pi * 89 / 90)) / 2),
        ("linear", 1 - 40 / 90, 1 - 89 / 90),
        ("constant", 1.0, 1.0),
        ("wsd", 1.0, 1 - 19 / 20),
    ],
)
def test_schedules_follow_their_formula(schedule: str, middle: float, last: float) -> None:
    curve = rates(schedule=schedule, warmup=0.1)
    assert (curve[50], curve[99]) == pytest.approx((middle, last))
    floored = rates(schedule=schedule, warmup=0.1, final_lr=0.5)
    expected = last if schedule == "constant" else 0.5 + 0.5 * last
    assert floored[99] == pytest.approx(expected)


def test_no_warmup_starts_at_the_peak_and_a_whole_one_never_falls() -> None:
    assert rates(warmup=0.0)[0] == 1.0
    assert rates(warmup=1.0)[99] == 1.0


# -- weights ------------------------------------------------------------------------------------


def test_averaged_weights_follow_the_recursion() -> None:
    model = nn.Linear(3, 2)
    averaged = Averaged(model, 0.9)
    expected = model.weight.detach().numpy().copy()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += step
        averaged.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().numpy()
    before = model.weight.detach().clone()
    with averaged.applied():
        np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-5)
    assert torch.equal(model.weight, before)


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = build_optimizer(model, TrainOptions(weight_decay=0.3), torch.device("cpu"))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_weights_to_predict_with_are_the_averaged_ones(new_run: NewRun) -> None:
    from tests.train.toy import Toy

    run = new_run("run")
    result = fit(run, {"ema": 0.9})
    task = Toy()
    model = task.build()
    load_weights(model, run.checkpoint().path)
    with torch.no_grad():
        assert task.validate(model.eval()) == result.metrics


def test_tied_weights_are_saved_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    assert list(named_tensors(model)) == ["a.weight"]


# -- streams ------------------------------------------------------------------------------------


def stream(n: int = 10, *, rank: int = 0, world: int = 1, batch_size: int = 4) -> ShuffledBatches:
    place = Place(rank=rank, world_size=world)
    return ShuffledBatches(n, lambda rows: rows, place=place, batch_size=batch_size, seed=5)


def test_each_epoch_shows_every_example_once_in_another_order() -> None:
    source = stream()
    shown = np.concatenate([next(source) for _ in range(5)])  # 20 places: two epochs of ten
    first, second = shown[:10], shown[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_together_read_what_one_would(world: int) -> None:
    alone = stream(batch_size=7)
    ranks = [stream(rank=rank, world=world, batch_size=7) for rank in range(world)]
    for _ in range(6):
        assert list(np.concatenate([next(rank) for rank in ranks])) == list(next(alone))


def test_a_batch_may_be_larger_than_the_data() -> None:
    shown = next(stream(n=3, batch_size=9))
    assert sorted(shown) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_stream_refuses_no_data_other_data_and_too_small_batches() -> None:
    with pytest.raises(UserError, match="no training examples"):
        stream(n=0)
    with pytest.raises(UserError, match="batch-size 2 is smaller than the 3 processes"):
        stream(world=3, batch_size=2)
    with pytest.raises(UserError, match="trained on 10 examples, now there are 9"):
        stream(n=9).load_state_dict(stream(n=10).state_dict())


def test_reading_ahead_gives_the_same_batches_and_the_position_handed_out() -> None:
    plain = stream()
    with ReadAhead(stream(), depth=3) as ahead:
        for _ in range(5):
            assert list(next(ahead)) == list(next(plain))
            assert ahead.state_dict() == plain.state_dict()
        position = plain.state_dict()
        expected = list(next(plain))
        next(ahead), next(ahead)
        ahead.load_state_dict(position)
        assert list(next(ahead)) == expected


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_wanted() -> None:
    source = stream()
    source.fetch = lambda rows: rows if 3 not in rows else _fail()
    with ReadAhead(source) as ahead, pytest.raises(UserError, match="shard 3 is damaged"):
        [next(ahead) for _ in range(5)]


def _fail() -> np.ndarray:
    raise UserError("shard 3 is damaged")


# -- batches ------------------------------------------------------------------------------------


class Pair(NamedTuple):
    x: Tensor
    y: np.ndarray


@dataclasses.dataclass
class Record:
    x: Tensor
    name: str


@pytest.mark.parametrize(
    "whole",
    [
        torch.arange(7),
        np.arange(7),
        {"x": torch.arange(7), "deep": [torch.ones(7, 2), (np.zeros(7),)]},
        Pair(torch.arange(7), np.arange(7)),
        Record(torch.arange(7), "control"),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_pieces_of_any_batch_are_nearly_equal_and_complete(whole: object, count: int) -> None:
    cut = list(batch.pieces(whole, count))
    sizes = [batch.length(piece) for piece in cut]
    assert sum(sizes) == batch.length(whole) == 7
    assert max(sizes) - min(sizes) <= 1
    assert len(cut) == min(count, 7)
    assert type(cut[0]) is type(whole)
    assert batch.length(batch.to_device(cut[-1], torch.device("cpu"))) == sizes[-1]


# -- sinks --------------------------------------------------------------------------------------


WANDB = """
import json, pathlib
class Fake:
    def __init__(self, folder): self.file = pathlib.Path(folder) / "wandb.txt"
    def log(self, values, step): self.write([step, values])
    def finish(self): self.write("finished")
    def write(self, what):
        with self.file.open("a") as stream: stream.write(json.dumps(what) + "\\n")
def init(*, project, name, id, resume, dir): return Fake(dir)
"""


def test_weights_and_biases_gets_every_number_of_the_events(
    new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    run = new_run("run")
    fit(run, {"validate_every": 10, "max_steps": 10, "sinks": ("wandb",)})
    fit(run, {"validate_every": 10, "max_steps": 20, "sinks": ("wandb",)})
    lines = (run.path / "wandb.txt").read_text().splitlines()
    sent = [json.loads(line) for line in lines]
    assert sent.count("finished") == 2
    steps = [item for item in sent if item != "finished" and "metric/loss" in item[1]]
    assert [(step, values["metric/loss"]) for step, values in steps] == [
        (event["step"], event["loss"]) for event in run.events(["metric"])
    ]
    evals = [item for item in sent if item != "finished" and "eval/mse" in item[1]]
    assert [step for step, _ in evals] == [10, 20]


def test_a_sink_that_fails_does_not_end_the_training(
    new_run: NewRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "site").mkdir()
    broken = WANDB.replace("self.write([step, values])", "1 / 0")
    (tmp_path / "site" / "wandb.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert fit(new_run("run"), {"sinks": ("wandb",)}).ended == "done"
    assert "WeightsAndBiases failed, going on without: division by zero" in capsys.readouterr().err


def test_tensorboard_gets_every_number_of_the_events(new_run: NewRun) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = new_run("run")
    fit(run, {"validate_every": 10, "sinks": ("tensorboard",)})
    written = EventAccumulator(str(run.path / "tensorboard"))
    written.Reload()
    sent = [(scalar.step, scalar.value) for scalar in written.Scalars("metric/loss")]
    told = [(event["step"], event["loss"]) for event in run.events(["metric"])]
    assert sent == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in told]


# -- imports ------------------------------------------------------------------------------------


def test_the_options_are_declared_without_torch() -> None:
    code = "import sys, vcell.train; print({'torch', 'numpy', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# -- documentation ------------------------------------------------------------------------------


def test_the_trainer_of_the_guide_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (repository / "docs" / "training.md").read_text()
    code = guide.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "docs/training.md", "exec"), names)
    result = names["result"]
    assert result.ended == "done"  # type: ignore[attr-defined]
    assert result.best < 0.5  # type: ignore[attr-defined]
    told = Run.open("latest").events(["metric"])
    assert told[-1]["loss"] < told[0]["loss"] / 5


def test_a_run_tells_its_readers_what_was_trained_and_which_way_is_better(new_run: NewRun) -> None:
    run = new_run("run")
    fit(run, {"validate_every": 10, "max_steps": 10, "precision": "fp32", "batch_size": 8})
    meta = Run.open(run.path).meta
    assert (meta["monitor"], meta["higher_is_better"], meta["precision"]) == ("mse", False, "fp32")
    assert meta["parameters"] > 0
    assert [device.endswith("cores") for device in meta["devices"]] == [True]
    history = run.history()
    assert list(history.series("examples").values) == [8.0 * step for step in range(1, 11)]
    assert history.best("mse").step == 10
    assert set(history.spans()) >= {"data", "forward", "backward", "optimiser", "other", "total"}


def test_a_resumed_run_shows_the_validations_of_all_its_sessions(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("run")
    fit(run, {"validate_every": 5, "max_steps": 10})
    best = run.history().best("mse").value
    capsys.readouterr()
    fit(run, {"validate_every": 5, "max_steps": 15, "lr": 0.0})
    assert f"(best {min(best, run.history().best('mse').value):.4g})" in capsys.readouterr().err
    spans = run.history().ranks[0].tables["span"]
    assert list(spans.steps) == list(range(1, 16))
