"""`vcell train-vcc --sweep`: settings are searched, studies resume, errors come first."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from vcell_train_vcc import report

from vcell.cli import run
from vcell.errors import RunFailed
from vcell.runs import Run


def project(tmp_path, *lines, head=()):
    text = "\n".join(["[train-vcc]", 'model = "ridge"', *head, "[train-vcc.sweep-over]", *lines])
    (tmp_path / "vcell.toml").write_text(text + "\n")


def swept(capsys, *words):
    capsys.readouterr()
    code = run(["train-vcc", "--json", *map(str, words)])
    told = capsys.readouterr()
    return code, json.loads(told.out) if code == 0 else told.err


def test_numbers_logarithms_and_lists_are_drawn_by_their_type(cells, tmp_path, capsys):
    pytest.importorskip("optuna")
    project(
        tmp_path,
        "components = {low = 2, high = 12, log = true}",
        "dropout = {low = 0, high = 0.3}",
        "batch-size = [4, 8]",
        'preset = ["tiny", "small"]',
        "compile = [true, false]",
    )
    _, found = swept(capsys, cells, "--sweep", "2")
    for one in found["trials"]:
        drawn = one["settings"]
        assert isinstance(drawn["components"], int)
        assert 2 <= drawn["components"] <= 12
        assert 0 <= drawn["dropout"] <= 0.3
        assert drawn["batch_size"] in (4, 8)
        assert drawn["preset"] in ("tiny", "small")
        assert drawn["compile"] in (True, False)
        config = Run.open(Path(found["run"]) / "trials" / one["run"]).meta["config"]
        assert {name: config[name] for name in drawn} == drawn


WRONG = [
    ("dropot = [0, 0.1]", "dropot is not an option that can be searched (did you mean dropout?)"),
    ("lr = {low = 2, high = 1}", "lr low (2) must be below high (1)"),
    ("lr = {low = 0, high = 1, log = true}", "lr low (0) must be above 0 to search by the log"),
    ("lr = {low = 1}", "lr lacks high: write lr = {low = 0.0005, high = 0.002}"),
    ("lr = {low = 1, hihg = 2}", "lr has no hihg (did you mean high?)"),
    ("lr = {low = 1, high = 2, log = 1}", "lr log must be true or false"),
    ("lr = 0.1", "lr must be a range: write lr = {low = 0.0005, high = 0.002}"),
    ('lr = "1e-4..1e-2"', "lr must be a range"),
    ("lr = []", "lr lists no values"),
    ("lr = [1, 1.0]", "lr lists a value twice"),
    ("dropout = {low = 0, high = 7}", "dropout high must be at most 0.9, not 7"),
    ("batch-size = {low = 1.5, high = 4}", "batch-size low must be a whole number, not 1.5"),
    ("batch-size = [4, true]", "batch-size each value must be a whole number, not true"),
    ('preset = ["tiny", "huge"]', "preset each value must be one of"),
    (
        "preset = {low = 1, high = 2}",
        'preset is not a number: list its values, as preset = ["auto"',
    ),
    ("seed = [1, 2]", "seed is not an option that can be searched"),
    ("features = []", "features is not an option that can be searched"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_an_impossible_range_is_reported_with_file_line_and_key(tmp_path, capsys, line, said):
    project(tmp_path, "weight-decay = [0, 0.1]", line)
    for command in (["train-vcc", "no.h5ad", "--sweep", "2"], ["config", "check"]):
        assert run(command) == 2
        told = capsys.readouterr().err
        assert f"vcell.toml:5: [train-vcc.sweep-over] {said}" in told
        assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_all_wrong_ranges_are_reported_together(tmp_path, capsys):
    project(tmp_path, "lr = 1", "dropout = []")
    assert run(["config", "check"]) == 2
    told = capsys.readouterr().err
    assert "vcell.toml:4" in told
    assert "vcell.toml:5" in told


def test_ranges_have_the_same_syntax_on_the_command_line(cells, capsys):
    pytest.importorskip("optuna")
    model = ["--model", "ridge", "--sweep", "1", "--sweep-over"]
    code, found = swept(capsys, cells, *model, "components = [3], dropout = {low = 0, high = 0.3}")
    assert code == 0
    assert found["best"]["settings"]["components"] == 3
    assert swept(capsys, cells, *model, "components=2..12")[0] == 2
    _, told = swept(capsys, cells, *model, "components = {low = 2, high = 1}")
    assert "components low (2) must be below high (1)" in told


def test_the_schema_and_the_settings_include_ranges(tmp_path, capsys):
    assert run(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)["properties"]["train-vcc"]["properties"]
    ranges = schema["sweep-over"]["properties"]
    between, several = ranges["dropout"]["anyOf"]
    assert between["required"] == ["low", "high"]
    assert several["items"]["maximum"] == 0.9
    assert ranges["preset"]["items"]["enum"] == schema["preset"]["enum"]
    assert "seed" not in ranges
    project(tmp_path, "batch-size = [4, 8]")
    assert run(["config", "show", "train-vcc"]) == 0
    assert "{batch-size = [4, 8]}" in capsys.readouterr().out


def settings_of_trials(found):
    return [one["settings"] for one in Run.open(found["run"]).events({"trial"})]


def test_an_interrupted_sweep_continues_like_an_uninterrupted_one(
    cells, tmp_path, second_interrupted, capsys
):
    pytest.importorskip("optuna")
    project(tmp_path, "components = {low = 2, high = 12}")
    _, whole = swept(capsys, cells, "--sweep", "4")
    calls = second_interrupted()
    assert swept(capsys, cells, "--sweep", "3")[0] == 130
    assert Run.open("latest").status() == "interrupted"
    assert swept(capsys, "--resume", "latest")[0] == 0
    _, found = swept(capsys, "--resume", "latest", "--sweep", "4")
    assert calls[1] == calls[2]  # the trial that was cut short went on
    assert settings_of_trials(found) == settings_of_trials(whole)
    values = [one["value"] for one in found["trials"]]
    assert values == sorted(values, reverse=True)
    best = Run.open(Path(found["run"]) / "trials" / found["best"]["run"])
    assert best.meta["config"]["components"] == found["best"]["settings"]["components"]
    rows = list(csv.DictReader((Path(found["run"]) / "sweep.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4"]
    code, told = swept(capsys, "--resume", "latest", "--components", "5")
    assert code == 2
    assert "cannot go on with another --components" in told


def test_a_failed_trial_is_reported_and_the_others_continue(cells, tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    project(tmp_path, "dropout = {low = 0, high = 0.3}")
    calm, calls = report.scored, []

    def failing(*given):
        calls.append(given)
        if len(calls) == 2:
            raise RunFailed("the loss is not a number")
        return calm(*given)

    monkeypatch.setattr(report, "scored", failing)
    _, found = swept(capsys, cells, "--sweep", "3")
    assert [len(found["trials"]), len(found["failed"])] == [2, 1]
    assert found["failed"][0]["error"] == "the loss is not a number"
    assert Run.open("latest").status() == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "2"], "nothing to search"),
        (["--sweep", "2", "--sweep-over", "lr = [1]", "--folds", "3"], "cannot go with --sweep"),
        (["--sweep", "2", "--sweep-over", "lr = [1]", "--control", "ctrl"], "no cell labelled"),
    ],
)
def test_an_impossible_sweep_is_refused_and_leaves_nothing(cells, tmp_path, capsys, words, said):
    assert run(["train-vcc", str(cells), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
