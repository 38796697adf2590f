"""Every command that writes, ended by a signal and on a full disk: a word, a code, nothing left.

The signal comes when all is written aside and nothing has its name yet, which no waiting is needed
for. A few commands are tried by default, all of them by the slow tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pandas import DataFrame

from tests.outputs.test_every_command import MAKES, STARTS, replaces
from tests.support import in_this_process, shortly
from vcell.outputs import aside

if TYPE_CHECKING:
    from tests.support import Ran

PATIENTS = ("patients.h5ad", "--cell-type-column", "cell_type")
TYPES = ("patients.h5ad", "--labels", "cell_type")
TINY = ("--model", "synthetic:gf-6L-10M-i2048")
ISP = ("ensembl.h5ad", *TINY, "--genes", "each:genes.txt", "--no-gates", "--device", "cpu")
RUNS = {  # what a case names in braces is made when the first one needs it
    "train-vcc": ("train-vcc", "cells.h5ad", "--model", "ridge"),
    "train-gmvae": ("train-gmvae", *TYPES, "--max-steps", "20"),
    "isp": ("isp", "run", *ISP),
    "train-bulk": (
        *("train-bulk", *PATIENTS, "--steps", "5", "--axes", "2", "--members", "1"),
        *("--folds", "2", "--inner-folds", "2"),
    ),
}
GRAPH = (
    *("graph-profile", "--graph", "edges.tsv", "--strategy", "khop1", "--steps", "1"),
    *("--batch-size", "2", "--seconds", "0"),
)
WRITES = {  # the same outputs as in MAKES, of commands that would succeed; {} is the output
    "convert target": ("convert", "cells.h5ad", "{}.zarr"),
    "de output": ("de", "cells.h5ad", "-o", "{}.parquet"),
    "demo output": ("demo", "-o", "{}"),
    "effects output": ("effects", "cells.h5ad", "-o", "{}.parquet"),
    "embed output": ("embed", "{train-gmvae}", "patients.h5ad", "-o", "{}.h5ad"),
    "evaluate output": ("evaluate", "cells.h5ad", "cells.h5ad", "-o", "{}"),
    "features output": ("features", "sets.gmt", "-o", "{}"),
    "figures output": ("figures", "roc", "{train-bulk}", "-o", "{}"),
    "graph-profile output": (*GRAPH, "-o", "{}.html"),
    "graph-profile save": (*GRAPH, "--save", "{}"),
    "inspect html": ("inspect", "cells.h5ad", "--html", "{}.html"),
    "isp embed output": ("isp", "embed", "ensembl.h5ad", *TINY, "-o", "{}.h5ad"),
    "isp run export_upstream_pickles": ("isp", "run", *ISP, "--export-upstream-pickles", "{}"),
    "isp stats output": ("isp", "stats", "{isp}", "-o", "{}.csv"),
    "isp-bench output": (
        *("isp-bench", "ensembl.h5ad", *TINY, "--method", "baseline", "--max-cells", "2"),
        *("--repeats", "1", "--no-shifts", "-o", "{}.html"),
    ),
    "pack output": ("pack", "cells.h5ad", "--genes", "genes.csv", "-o", "{}.vcc"),
    "pipeline output": (
        *("pipeline", "bulk", "--cells", *PATIENTS, "--min-genes", "1", "--no-states", "-o", "{}"),
    ),
    "predict output": ("predict", "{train-vcc}", "--no-calibrate", "-o", "{}.h5ad"),
    "predict-bulk output": ("predict-bulk", "{train-bulk}", "patients.h5ad", "-o", "{}.csv"),
    "prepare output": ("prepare", "cells.h5ad", "-o", "{}"),
    "pseudobulk output": ("pseudobulk", *TYPES, "--samples", "20", "-o", "{}.h5ad"),
    "report output": ("report", "{train-vcc}", "-o", "{}.html"),
    "report plots_only": ("report", "{train-gmvae}", "--plots-only", "{}"),
    "select-genes output": ("select-genes", "cells.h5ad", "--n-genes", "50", "-o", "{}"),
    "simulate out": ("simulate", "{}.h5ad", "--n-cells", "300", "--genes", "400"),
    "isp run": ("isp", "run", *ISP, "--runs", "{}"),
    "train-bulk": (*RUNS["train-bulk"], "--runs", "{}"),
    "train-gmvae": (*RUNS["train-gmvae"], "--runs", "{}"),
    "train-graph": (
        "train-graph", "sets.tsv", "--model", "additive", "--folds", "2", "--runs", "{}"
    ),
    "train-vcc": (*RUNS["train-vcc"], "--runs", "{}"),
}  # fmt: skip
OTHERWISE = {  # why an output of MAKES has no place here
    "evaluate cache": "what cannot be kept is made anew",
    "gpu-tune monitor log_file": "lines are added to it one by one",
    "predict explain": "follows what `predict output` writes",
    "predict pack": "is `pack output`",
}
#: What goes on from where it was, and so leaves something.
GOES_ON = {"demo output", "pipeline output", "prepare output"}
BY_DEFAULT = ("effects output", "features output", "pseudobulk output", "graph-profile save")


def test_every_command_that_writes_is_tested():
    assert {*WRITES, *OTHERWISE} == {*MAKES, *STARTS}


def run_of(word: str, folder: Path) -> str:
    """Return the path of a run named in braces by a case; the first such case creates it."""
    name = word.strip("{}") if word[:1] == "{" and word[1:2] != "}" else ""
    if not name:
        return word
    if not (folder / name).exists():
        done = in_this_process((*RUNS[name], "--runs", "made"), folder)
        assert done.code == 0, done.err
        (new,) = (folder / "made").iterdir()
        new.rename(folder / name)
    return str(folder / name)


@pytest.fixture
def ended(folder) -> Callable[[str, Path], Ran]:
    """Run the command of a case, which writes to a path."""

    def run(name: str, place: Path, *more: str) -> Ran:
        words = [run_of(word, folder).replace("{}", str(place / "x")) for word in WRITES[name]]
        return in_this_process([*words, *more], folder)

    return run


def one_sentence(ran: Ran, code: int) -> str:
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    (told,) = (line for line in ran.err.splitlines() if line.startswith("error: "))
    return told


def left(place: Path) -> list[str]:
    return sorted(p.name for p in place.rglob("*") if not p.is_dir())


REPLACED = [n for n in WRITES if n in MAKES and n not in GOES_ON and replaces(n)]


@pytest.mark.parametrize("name", shortly(REPLACED, "predict-bulk output", *BY_DEFAULT))
def test_what_it_made_is_replaced_with_overwrite_only(ended, tmp_path, name):
    assert ended(name, tmp_path).code == 0
    assert "exists already" in one_sentence(ended(name, tmp_path), 2)
    ran = ended(name, tmp_path, "--overwrite")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("name", shortly(WRITES, *BY_DEFAULT))
def test_a_signal_at_the_end_leaves_nothing(ended, tmp_path, monkeypatch, name):
    def now(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(aside, "_sync", now)
        if "{train" in str(WRITES[name]) or "{isp" in str(WRITES[name]):
            patch.undo()
            ended(name, tmp_path / "first")  # makes the run that it needs
            shutil.rmtree(tmp_path / "first", ignore_errors=True)
            patch.setattr(aside, "_sync", now)
        told = one_sentence(ended(name, tmp_path), 130)
    assert told == "error: interrupted by SIGTERM"
    assert not list(tmp_path.rglob("*.tmp-*"))
    if name not in GOES_ON:
        assert left(tmp_path) == []
    if name not in GOES_ON | set(STARTS):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", shortly(("figures output", "report plots_only"), "figures output"))
def test_a_signal_between_pictures_leaves_none(ended, tmp_path, monkeypatch, name):
    figure = pytest.importorskip("matplotlib.figure").Figure
    assert ended(name, tmp_path / "first").code == 0
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert one_sentence(ended(name, tmp_path / "second"), 130) == "error: interrupted by SIGTERM"
    assert left(tmp_path / "second") == []


def test_a_signal_between_a_page_and_its_table_leaves_neither(ended, tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    assert ended("isp stats output", tmp_path / "first").code == 0
    monkeypatch.setattr(DataFrame, "to_csv", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    ran = ended("isp stats output", tmp_path / "second")
    assert one_sentence(ran, 130) == "error: interrupted by SIGTERM"
    assert left(tmp_path / "second") == []


def test_a_list_of_figures_that_a_kill_left_half_written_is_removed(ended, tmp_path):
    half = tmp_path / "x" / "figures.json.tmp-999999999"
    half.parent.mkdir()
    half.touch()
    assert ended("figures output", tmp_path).code == 0
    assert not half.exists()


def test_a_signal_inside_of_a_drawing_is_not_lost(ended, tmp_path, monkeypatch):
    """matplotlib's C++ code asks transforms for their matrix, and drops what they raise."""
    transforms = pytest.importorskip("matplotlib.transforms").Affine2DBase
    matrix = transforms.__array__

    def interrupted(transform, *words, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return matrix(transform, *words, **options)

    assert ended("figures output", tmp_path / "first").code == 0
    monkeypatch.setattr(transforms, "__array__", interrupted)
    told = one_sentence(ended("figures output", tmp_path / "second"), 130)
    assert told == "error: interrupted by SIGTERM"
    assert left(tmp_path / "second") == []


#: Commands that show what took them long, and what they show; others write what nobody can read.
SHOW = {
    "de output": "tests", "effects output": "genes beyond", "evaluate output": "overall",
    "graph-profile output": "khop", "inspect html": "raw counts", "isp stats output": "status",
    "isp-bench output": "baseline", "predict-bulk output": "cross-validation",
    "select-genes output": "first 50",
}  # fmt: skip


@pytest.mark.parametrize("name", shortly(WRITES, "inspect html", *BY_DEFAULT))
def test_a_full_disk_is_reported_in_one_sentence_and_leaves_nothing(ended, small_disk, name):
    subprocess.run(["mount", "-o", "remount,size=64k", small_disk], check=True)
    (small_disk / "others").write_bytes(b"\0" * (64 * 1024 - 4096))
    ran = ended(name, small_disk)
    told = one_sentence(ran, 1)
    assert "no space" in told or name == "demo output"  # which names the step
    assert SHOW.get(name, "") in ran.out
    assert not list(small_disk.rglob("*.tmp-*"))
    if name not in GOES_ON:
        assert left(small_disk) == ["others"]
