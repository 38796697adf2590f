"""`vcell train-vcc --estimate` against training measured afterwards: time and memory of a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from vcell import console
from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.runs import Run
from vcell.train import rehearse, session

STEPS = ["--max-steps", "4", "--validate-every", "0", "--checkpoint-every", "0"]
SETTINGS = ["--device", "cpu", "--tokens", "384", *STEPS]
PRESETS = [["--preset", "tiny"], ["--preset", "small", "--batch-size", "4"]]
ATTENTIONS = [
    [*PRESETS[0], "--attention", "local"],
    [*PRESETS[0], "--attention", "linear"],
    [*PRESETS[0], "--model", "shared-encoder"],
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=1200, genes=500, perturbations=20, batches=2, umis=2000.0, seed=1).write(path)
    return path


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())
    monkeypatch.setenv("VCELL_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def estimated(words, capsys):
    capsys.readouterr()
    assert run(["train-vcc", "--estimate", "--json", *SETTINGS, *words]) == 0
    return json.loads(capsys.readouterr().out)["estimate"]


class Clock:
    """CPU time of this thread, without other work on the machine."""

    perf_counter = staticmethod(time.thread_time)
    monotonic = staticmethod(time.monotonic)


@pytest.mark.slow
@pytest.mark.parametrize("words", [*PRESETS, *ATTENTIONS], ids=" ".join)
def test_the_time_of_a_step_is_predicted_within_15_percent(cells, monkeypatch, capsys, words):
    monkeypatch.setattr(rehearse, "time", Clock)
    monkeypatch.setattr(session, "time", Clock)
    told, measured = [], []
    for _ in range(3):
        told.append(estimated(words, capsys)["step_seconds"])
        assert run(["train-vcc", str(cells), *SETTINGS, *words, "-q"]) == 0
        spans = Run.open("latest").rank_log(0).path.read_text().splitlines()
        seconds = [json.loads(line) for line in spans]
        measured += [one["seconds"] for one in seconds if one["kind"] == "span"][1:]
    print(words, min(told), min(measured))
    assert min(told) == pytest.approx(min(measured), rel=0.15)


TRAINED = """
    import re, sys
    from pathlib import Path
    import torch
    from vcell_train_vcc.network.task import CellTask
    from vcell.cli import run

    def kilobytes(name):
        return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    torch.set_num_threads(1)
    some = sys.argv[3:]  # without the command and the cells
    assert run(["train-vcc", "--estimate", *some]) == 0  # the code itself is read in, once
    calm, before = CellTask.build, []

    def build(self):
        before.append(kilobytes("VmRSS"))
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        return calm(self)

    CellTask.build = build
    assert run(sys.argv[1:]) == 0
    print("rise", 1024 * (kilobytes("VmHWM") - before[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("words", [*PRESETS, *ATTENTIONS], ids=" ".join)
def test_the_peak_of_memory_is_predicted_within_15_percent(cells, capsys, words):
    told = estimated(words, capsys)["memory_bytes"]
    command = ["train-vcc", str(cells), *SETTINGS, *words, "-q"]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRAINED), *command],
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rise = int(ran.stdout.split()[-1])
    print(words, told / 2**20, rise / 2**20)
    assert told == pytest.approx(rise, rel=0.15)
