"""The whole command of docs/training.md, installed from the page and used as the page says."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support import clean_environment
from vcell.data.simulate import Simulator
from vcell.runs import Run

PACKAGE = "vcell_train_squeeze"


@pytest.fixture(scope="module")
def page(repository) -> str:
    text = (repository / "docs" / "training.md").read_text(encoding="utf-8")
    start = text.index("## A whole command that trains")
    return text[start : text.index("\n## ", start)]


@pytest.fixture
def installed(page, tmp_path) -> dict[str, str]:
    """Install the plugin of the page beside some cells; return the environment that sees it."""
    door, work = re.findall(r"```python\n(.*?)```", page, re.S)
    site = tmp_path / "site"
    (site / PACKAGE).mkdir(parents=True)
    (site / PACKAGE / "__init__.py").write_text(door)
    (site / PACKAGE / "work.py").write_text(work)
    info = site / f"{PACKAGE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    line = re.search(r"`(train-squeeze = [^`]*)`", page)[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[vcell.plugins]\n{line}\n")
    Simulator(cells=300, genes=60, perturbations=8, umis=800.0, seed=1).write(
        tmp_path / "cells.h5ad"
    )
    return {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def test_it_is_a_command_of_about_150_lines(page, installed, vcell):
    lines = [
        line
        for code in re.findall(r"```python\n(.*?)```", page, re.S)
        for line in code.splitlines()
    ]
    assert len([line for line in lines if line.strip()]) <= 150
    checked = vcell("plugins", "check", "train-squeeze", "--json", env=installed)
    broken = [rule for rule in checked.json["rules"] if not rule["ok"]]
    assert (checked.code, broken) == (0, [])


def test_its_commands_work_as_they_stand_there(page, installed, vcell, tmp_path):
    pytest.importorskip("optuna")
    commands = re.findall(r"^\$ vcell (.*)$", page, re.M)
    said = {}
    for line in commands:
        words = shlex.split(line)
        machine = ["--json"] if words[0] == "train-squeeze" else []
        ran = vcell(*words, *machine, env=installed)
        assert ran.code == 0, f"{line}: {ran.err}"
        said[line] = ran
    first, resumed, folds, sweep, shown, watched, reported = said.values()
    error = {name: of["error"] for name, of in first.json["held_out"].items()}
    assert error["squeeze"] > 0
    run = Run.open(tmp_path / first.json["run"])
    assert first.json["run"] == resumed.json["run"]
    steps = [event["step"] for event in run.events({"metric"})]
    assert steps == list(range(1, 61))  # 40 and 20 more, none of them twice
    assert [event["step"] for event in run.events({"resume"})] == [40]
    again = {name: of["error"] for name, of in resumed.json["held_out"].items()}
    assert again["squeeze"] < error["squeeze"]
    whole = tmp_path / folds.json["run"]
    rows = list(csv.DictReader((whole / "folds.csv").read_text().splitlines()))
    told = [float(row["error"]) for row in rows if row["model"] == "squeeze"]
    assert len(told) == 3
    mean = folds.json["held_out"]["squeeze"]["error"]
    assert mean == pytest.approx(sum(told) / 3, rel=1e-4)
    assert {one["settings"]["width"] for one in sweep.json["trials"]} <= {2, 8}
    assert "train-squeeze" in shown.out
    assert watched.out.count("train-squeeze") >= 3
    assert "<html" in next((tmp_path / sweep.json["run"]).glob("*.html")).read_text()
    assert "report.html" in reported.out + reported.err


def weights(folder: Path) -> dict[str, Any]:
    (run,) = folder.iterdir()
    return load_file(Run.open(run).checkpoint("latest").path / "model.safetensors")


@pytest.mark.slow  # killed runs of the loop itself: test_resume.py
def test_a_run_that_is_killed_goes_on_to_the_same_weights(installed, vcell, tmp_path):
    words = ["train-squeeze", "cells.h5ad", "--max-steps", "600", "--checkpoint-every", "10"]
    whole = vcell(*words, "--runs", "whole", env=installed)
    assert whole.code == 0, whole.err
    begun = subprocess.Popen(
        [sys.executable, "-m", "vcell", *words, "--runs", "part"],
        cwd=tmp_path,
        env=clean_environment() | installed,
        stderr=subprocess.DEVNULL,
    )
    while begun.poll() is None and not list(tmp_path.glob("part/*/ckpt/step-000010")):
        time.sleep(0.005)
    begun.kill()
    assert begun.wait() == -signal.SIGKILL
    (run,) = (tmp_path / "part").iterdir()
    assert Run.open(run).status() == "crashed"
    on = vcell("train-squeeze", "--resume", run.name, "--runs", "part", env=installed)
    assert on.code == 0, on.err
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    other = vcell("train-vcc", "--resume", run.name, "--runs", "part", env=installed)
    assert other.code == 2
    assert "is a run of vcell train-squeeze, not of train-vcc" in other.err


def test_what_it_refuses_leaves_nothing(installed, vcell, tmp_path):
    for words, told in [
        ([], "no cells to train on"),
        (["cells.h5ad", "--folds", "2", "--fold", "1/2"], "--folds cannot go with --fold"),
        (["cells.h5ad", "--sweep", "2"], "--sweep has nothing to search"),
    ]:
        ran = vcell("train-squeeze", *words, env=installed)
        assert (ran.code, told in ran.err) == (2, True), ran.err
    assert not (tmp_path / "runs").exists()
    assert json.loads(vcell("runs", "list", "--json", env=installed).out)["runs"] == []
