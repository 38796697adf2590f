"""Phases: the learning rate warms up again, and what a model starts as may be its best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.train.conftest import differences, losses
from tests.train.test_resume import PulledPlug, cut_short
from tests.train.toy import fit
from vcell.runs import Run
from vcell.train import TrainOptions
from vcell.train.optim import learning_rate
from vcell.train.task import Phase

NewRun = Callable[[str], Run]
PHASES = (0, 5, 10, 15)


def test_the_learning_rate_rises_again_at_the_border_of_a_phase() -> None:
    options = TrainOptions(max_steps=100, lr=1.0, schedule="constant", warmup=0.1)
    phases = [Phase("first", 0), Phase("second", 40), Phase("third", 60)]
    curve = [learning_rate(step, options, phases) for step in range(100)]
    assert curve[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert curve[38:42] == pytest.approx([1.0, 1.0, 0.5, 1.0])  # a tenth of 20 steps
    assert curve[60:65] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])  # a tenth of 40 steps
    assert set(curve[64:]) == {1.0}


def test_without_phases_the_schedule_is_as_it_was() -> None:
    options = TrainOptions(max_steps=50, lr=1.0, warmup=0.1)
    one = [Phase("the only one", 0)]
    assert [learning_rate(s, options) for s in range(50)] == [
        learning_rate(s, options, one) for s in range(50)
    ]


@pytest.mark.parametrize("after", [3, 7, 10, 12, 18])
def test_a_crash_in_any_phase_changes_nothing(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    options: dict[str, Any] = {"checkpoint_every": 5, "validate_every": 10, "warmup": 0.4}
    task: dict[str, Any] = {"phases": PHASES, "validates_first": True}
    whole, cut = new_run("whole"), new_run("cut")
    fit(whole, options, **task)
    with monkeypatch.context() as patch:
        cut_short(patch, after=after)
        with pytest.raises(PulledPlug):
            fit(cut, options, **task)
    fit(cut, options, **task)
    assert differences(whole, cut, 20) == {}
    assert losses(whole) == losses(cut)
    names = [event["name"] for event in whole.events(["phase"])]
    assert names == [f"phase from {start}" for start in PHASES]


def test_what_the_model_starts_as_can_be_the_best(new_run: NewRun) -> None:
    run = new_run("run")
    scores = ((1.0, 2.0, 3.0),)
    result = fit(run, {"validate_every": 10}, scores=scores, validates_first=True)
    assert (result.best, result.best_step) == (1.0, 0)
    assert run.checkpoint("best").step == 0
    assert [event["step"] for event in run.events(["eval"])] == [0, 10, 20]
