"""Ctrl-C, kill, full disks and limits: one word, an exit code, nothing left."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, Ran, clean_environment, shortly

WORK = {
    "simulate": ("simulate", "out.h5ad", "--n-cells", 400_000),
    "simulate to zarr": ("simulate", "out.zarr", "--n-cells", 400_000),
    "convert": ("convert", "large.h5ad", "out.h5ad"),
    "convert to zarr": ("convert", "large.h5ad", "out.zarr", "--compression", "zstd"),
    "prepare": ("prepare", "large.h5ad", "-o", "out.zarr"),
    "de": ("de", "large.h5ad", "-o", "out.csv"),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Cells that take some seconds to process."""
    from vcell.data.simulate import SimulationDesign, Simulator

    folder = tmp_path_factory.mktemp("large")
    Simulator(SimulationDesign(cells=12_000, genes=2000, perturbations=60)).write(
        folder / "large.h5ad"
    )
    return folder / "large.h5ad"


def going(words: tuple[object, ...], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vcell", *map(str, words)],
        cwd=cwd, env=clean_environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def begun(folder: Path) -> bool:
    return any(".tmp-" in p.name for p in folder.iterdir())


def begun_to_prepare(folder: Path) -> bool:
    """Whether the work has begun, not only a trial of the output."""
    return (folder / ".out.zarr.preparing" / "journal.json").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", shortly(WORK, "simulate to zarr", "convert to zarr", "prepare"))
def test_a_signal_prints_one_word_exits_with_130_and_leaves_nothing(large, tmp_path, name, how):
    (tmp_path / "large.h5ad").symlink_to(large)
    with going(WORK[name], tmp_path) as process:
        has_begun = begun_to_prepare if name == "prepare" else begun
        while process.poll() is None and not has_begun(tmp_path):
            time.sleep(0.02)
        process.send_signal(how)
        out, err = process.communicate(timeout=PATIENCE)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: interrupted")
    assert how.name in err or how is signal.SIGINT
    assert {p.name for p in tmp_path.iterdir()} == {"large.h5ad"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_scoring_says_so_and_leaves_nothing(large, tmp_path, how):
    with going(("evaluate", large, large, "-o", "out", "--cache", "cache"), tmp_path) as process:
        assert process.stderr is not None
        said = process.stderr.readline()  # labels are found: the values come next
        process.send_signal(how)
        out, err = process.communicate(timeout=PATIENCE)
    assert "perturbations in" in said
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: interrupted")
    assert how.name in err or how is signal.SIGINT
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert not (tmp_path / "out").exists()


def test_leftovers_of_a_kill_are_removed_by_the_next_run(here, tmp_path):
    with going(("simulate", "out.h5ad", "--n-cells", 400_000), tmp_path) as process:
        while not begun(tmp_path):
            time.sleep(0.02)
        process.kill()
    assert begun(tmp_path)
    assert here("simulate", "out.h5ad", "--genes", 60, "--perturbations", 2).code == 0
    assert not begun(tmp_path)


def test_old_cells_are_never_next_to_a_new_truth(here, tmp_path):
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    words = ("simulate", "cells.h5ad", "--n-cells", 400_000, "--seed", 9, "--overwrite")
    with going(words, tmp_path) as process:
        while not begun(tmp_path):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


FULL = {
    "simulate": ("simulate", "{}/out.h5ad"),
    "simulate to zarr": ("simulate", "{}/out.zarr"),
    "convert": ("convert", "large.h5ad", "{}/out.h5ad", "--compression", "none"),
    "convert to zarr": ("convert", "large.h5ad", "{}/out.zarr", "--compression", "none"),
    "prepare": ("prepare", "large.h5ad", "-o", "{}/out.zarr"),
    "de": ("de", "large.h5ad", "-o", "{}/out.parquet"),
    "evaluate": ("evaluate", "large.h5ad", "large.h5ad", "-o", "{}/out"),
}


def no_room(ran: Ran, folder: Path) -> None:
    assert ran.code == 1, ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith(("error:", "  hint:"))]
    assert len(errors) == 1
    assert "Traceback" not in ran.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", shortly(FULL, "simulate", "convert to zarr", "evaluate"))
def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(
    vcell, large, small_disk, tmp_path, name
):
    (tmp_path / "large.h5ad").symlink_to(large)
    ran = vcell(*[str(word).format(small_disk) for word in FULL[name]])
    no_room(ran, small_disk)
    if name in ("evaluate", "de"):
        assert "mae" in ran.out or "tests" in ran.out, "what took minutes is shown in any case"


@pytest.mark.parametrize(
    ("words", "room", "code"),
    [
        (("init", "{}/a/project"), 0, 1),
        (("init", "{}/a/project"), 4096, 1),  # for the first of its two files
        (("demo", "-o", "{}/a/demo", "--n-cells", 300, "--genes", 100), 0, 1),
        (("prepare", "cells.h5ad", "-o", "{}/a/store"), 0, 1),
        (("prepare", "cells.h5ad"), 4096, 1),  # for its journal
        (("evaluate", "cells.h5ad", "cells.h5ad", "-o", "scores"), 0, 0),
        (("select-genes", "cells.h5ad", "--n-genes", 20, "-o", "genes"), 0, 0),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else str(words),
)
def test_a_disk_that_is_full_from_the_beginning_gets_not_even_a_folder(
    typed, made, monkeypatch, small_disk, tmp_path, words, room, code
):
    subprocess.run(["mount", "-o", "remount,size=64k", small_disk], check=True)
    (small_disk / "others").write_bytes(b"\0" * (64 * 1024 - room))
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk / "cache"))
    shutil.copy(made / "cells.h5ad", tmp_path)
    ran = typed(*[str(word).format(small_disk) for word in words])
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in small_disk.iterdir()] == ["others"]


@pytest.mark.parametrize("name", shortly(FULL, "convert", "simulate to zarr", "de"))
def test_a_file_size_limit_is_reported_in_one_line(large, tmp_path, name):
    (tmp_path / "large.h5ad").symlink_to(large)
    (tmp_path / "out").mkdir()
    words = [str(word).format("out") for word in FULL[name]]
    most = 150_000  # bytes; no mount is needed for this

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(
        [sys.executable, "-m", "vcell", *words], cwd=tmp_path, capture_output=True, text=True,
        env=clean_environment() | {"NUMBA_DISABLE_CACHING": "1"}, preexec_fn=limit, check=False,
    )  # fmt: skip
    no_room(Ran(done.returncode, done.stdout, done.stderr), tmp_path / "out")


def test_a_result_that_cannot_be_printed_is_reported_in_one_line(here, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vcell", "inspect", "cells.h5ad"], cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, text=True, env=clean_environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no space is left on the disk"
