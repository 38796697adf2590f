"""`vcell train-vcc --sweep`: settings are searched, the study goes on, mistakes are told first."""

from __future__ import annotations

import json

import pytest
from vcell_train_vcc.sweep import parse

from vcell import console
from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.errors import UserError
from vcell.runs import Run


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=600, genes=80, perturbations=15, umis=800.0, seed=1).write(path)
    return path


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())


def test_ranges_are_numbers_logarithms_and_lists():
    assert (parse("dropout=0..0.3").low, parse("dropout=0..0.3").high) == (0, 0.3)
    assert parse("lr = 1e-4..1e-2 log").log
    assert parse("max-steps=10..20").whole
    assert parse("preset=tiny|small").choices == ("tiny", "small")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "names no values"),
        ("learning=1..2", "cannot be searched"),
        ("dropot=0..1", "did you mean dropout"),
        ("lr=2..1", "no range"),
        ("lr=0..1 log", "above 0"),
        ("dropout=0..7", "at most 0.9"),
        ("preset=tiny|huge", "one of"),
        ("preset=tiny..small", "is no number"),
        ("seed=1..9", "cannot be searched"),
    ],
)
def test_a_range_that_cannot_be_is_told(text, said):
    with pytest.raises(UserError, match=said):
        parse(text)


def swept(cells, capsys, trials, *words):
    ranges = ["--sweep-over", "components=2..12"]
    flags = ["--sweep", str(trials), *ranges, "--model", "ridge", "--json", *words]
    code = run(["train-vcc", str(cells), *flags])
    told = capsys.readouterr()
    return code, json.loads(told.out) if code == 0 else told.err


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sweep_goes_on_where_it_ended(cells, tmp_path, capsys):
    pytest.importorskip("optuna")
    _, first = swept(cells, capsys, 2)
    _, second = swept(cells, capsys, 3)
    assert [len(first["trials"]), len(second["trials"])] == [2, 3]
    assert {one["run"] for one in first["trials"]} < {one["run"] for one in second["trials"]}
    values = [one["value"] for one in second["trials"]]
    assert values == sorted(values, reverse=True)
    best = Run.open(second["best"]["run"], root=tmp_path / "runs")
    assert best.meta["config"]["components"] == second["best"]["settings"]["components"]
    code, told = swept(cells, capsys, 4, "--seed", "5")
    assert code == 2
    assert "is a sweep of another seed" in told


def test_a_sweep_of_nothing_is_told_before_training(cells, tmp_path, capsys):
    assert run(["train-vcc", str(cells), "--sweep", "2"]) == 2
    assert "nothing to search" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
