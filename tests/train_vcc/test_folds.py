"""`vcell train-vcc --folds`: every perturbation is held out once, and one table has all."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from vcell import models
from vcell.cli import run
from vcell.models import Screen
from vcell.runs import Run, find_runs
from vcell.screen.split import TEST


def folds(cells, *words):
    return run(["train-vcc", str(cells), "--model", "ridge", "--folds", "3", "--json", *words])


def test_every_perturbation_is_held_out_once(cells, capsys):
    assert folds(cells) == 0
    told = json.loads(capsys.readouterr().out)
    this = Run.open("latest")
    runs = find_runs(this.path / "folds")[0]
    held = []
    for one in runs:
        screen = Screen.load(one.path / models.SCREEN)
        held += screen.perturbations[screen.rows(TEST)].tolist()
    assert sorted(held) == sorted(set(screen.perturbations.tolist()))
    rows = list(csv.DictReader((this.path / "folds.csv").read_text().splitlines()))
    assert {row["fold"] for row in rows} == {"1/3", "2/3", "3/3"}
    for name in ("mean", "ridge", "gp"):
        pds = [float(row["pds"]) for row in rows if row["model"] == name]
        assert told["held_out"][name]["pds"] == pytest.approx(np.mean(pds), abs=1e-5)  # equal folds
        assert told["spread"][name]["pds"] == pytest.approx(np.std(pds, ddof=1), abs=1e-5)
    assert told["held_out"]["mean"]["gain"] == 0
    assert "| ridge |" in (this.path / "folds.md").read_text()
    pooled = list(csv.DictReader((this.path / "held_out.csv").read_text().splitlines()))
    assert sorted(row["perturbation"] for row in pooled if row["model"] == "gp") == sorted(held)
    assert this.status() == "done"


def test_it_continues_after_an_interruption(cells, second_interrupted, capsys):
    calls = second_interrupted()
    assert folds(cells) != 0
    this = Run.open("latest")
    assert this.status() == "interrupted"
    assert run(["train-vcc", "--resume", "latest"]) == 0
    assert "fold 1/3 is done already" in capsys.readouterr().err
    assert len(calls) == 4
    assert calls[1] == calls[2]
    assert len(find_runs(this.path / "folds")[0]) == 3
    assert Run.open("latest").status() == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fold", "1/3"], "cannot go with --fold"),
        (["--held-out", "some.txt"], "cannot go with --held-out"),
        (["--folds", "40"], "15 perturbations cannot be split into 40 folds"),
        (["--control", "ctrl"], "no cell labelled"),
    ],
)
def test_impossible_settings_are_refused_and_leave_nothing(cells, tmp_path, capsys, words, said):
    (tmp_path / "some.txt").write_text("anything\n")
    assert folds(cells, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_cells_are_described_once_and_each_fold_by_what_differs(cells, capsys):
    assert folds(cells) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("fold")] == [f"fold {k}/3" for k in (1, 2, 3)]
    assert len([line for line in lines if line.startswith("run directory: ")]) == 3
    about = [line for line in lines if "perturbations in 'target_gene'" in line]
    assert len(about) == 1
    first = lines.index("fold 1/3")
    assert lines.index(about[0]) in range(first, lines.index("fold 2/3"))
    capsys.readouterr()
    assert run(["train-vcc", str(cells), "--model", "ridge"]) == 0
    assert about[0] in capsys.readouterr().err.splitlines()  # another command of this process


def test_the_verdict_is_over_all_held_out_perturbations_of_all_folds(cells, capsys):
    assert folds(cells) == 0
    told = json.loads(capsys.readouterr().out)
    over = told["verdict"]["over"]
    assert set(over) == {"mean", "perturbed-mean", "perturbed-mean-own", "no-change", "knn", "gp"}
    assert {one["n"] for one in over.values()} == {15}
    for one in over.values():
        assert one["low"] <= one["mean"] <= one["high"]
    gain = {name: one["gain"] for name, one in told["held_out"].items()}
    assert over["gp"]["mean"] == pytest.approx(gain["ridge"] - gain["gp"])


def test_a_perturbation_held_out_alone_has_no_pds(cells, capsys):
    assert run(["train-vcc", str(cells), "--model", "ridge", "--folds", "12", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    this = Run.open("latest")
    rows = list(csv.DictReader((this.path / "held_out.csv").read_text().splitlines()))
    mine = [row for row in rows if row["model"] == "ridge"]
    alone = [row for row in mine if row["pds"] == "nan"]
    assert (len(mine), len(alone)) == (15, 9)  # three folds of two
    by_mean = [row for row in rows if row["model"] == "mean"]
    told_by = [float(row["pds"]) for row in mine if row["pds"] != "nan"]
    assert told["held_out"]["ridge"]["pds"] == pytest.approx(np.mean(told_by), abs=1e-6)
    mae, base = (np.array([float(row["mae"]) for row in of]) for of in (mine, by_mean))
    gain = [
        float(r["pds"]) - float(m["pds"]) if r["pds"] != "nan" else np.nan
        for r, m in zip(mine, by_mean, strict=True)
    ]
    gain /= 1 - np.nanmean([float(row["pds"]) for row in by_mean])
    gain = np.nanmean([gain, (base - mae) / base.mean()], axis=0)
    assert told["held_out"]["ridge"]["gain"] == pytest.approx(gain.mean(), abs=1e-6)
    assert told["without_pds"] == 9
    assert (
        "9 held out alone in a fold: PDS, always 1 among one"
        in (this.path / "folds.md").read_text()
    )
    assert run(["report", "latest", "-o", "page.html"]) == 0
