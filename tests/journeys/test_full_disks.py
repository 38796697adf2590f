"""The disk fills up during training, prediction or packing: 3 MB in all."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest

from vcell.runs import find_runs

if TYPE_CHECKING:
    from tests.support import Ran

KB = 1000
SMALL = (
    *("--model", "transformer", "--preset", "tiny", "--tokens", 24, "--set-size", 8),
    *("--batch-size", 4, "--max-steps", 40, "--checkpoint-every", 2, "--validate-every", 2),
)


def fill(disk: Path, left: int) -> None:
    """Leave room for this many bytes, by a file that is not vcell's."""
    (disk / "others").write_bytes(b"\0" * (3 * 1024 * KB - left))


def one_line(ran: Ran) -> str:
    assert ran.code == 1, ran.err
    (error,) = (line for line in ran.err.splitlines() if line.startswith("error:"))
    assert "Traceback" not in ran.err
    assert "no space is left on the disk" in error
    return error


@pytest.mark.parametrize("left", [0, 2 * KB, 40 * KB])
@pytest.mark.parametrize("command", ["train-vcc", "train-gmvae"])
def test_training_that_cannot_start_on_a_full_disk_leaves_nothing(
    typed, project, small_disk, command, left
):
    fill(small_disk, left)
    ran = typed(command, "cells.h5ad", "--runs", small_disk, "--max-steps", 1, cwd=project)
    one_line(ran)
    assert [p.name for p in small_disk.iterdir()] == ["others"]


def test_training_on_a_full_disk_fails_in_one_line_and_can_be_resumed(typed, project, small_disk):
    ran = typed("train-vcc", *SMALL, "--runs", small_disk, cwd=project)
    one_line(ran)
    (run,), problems = find_runs(small_disk)
    assert not problems
    assert f"make room, then --resume {run.name} goes on with it" in ran.err
    assert run.checkpoints()
    assert not list(small_disk.rglob("*.tmp-*"))
    before = run.checkpoints()[-1]
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    words = ("--resume", "latest", "--max-steps", before + 1, "--runs", small_disk)
    ran = typed("train-vcc", *words, cwd=project)
    assert ran.code == 0, ran.err
    assert find_runs(small_disk)[0][0].status() == "done"


def test_predicting_on_a_full_disk_fails_in_one_line_and_leaves_nothing(typed, project, small_disk):
    fill(small_disk, 100 * KB)
    out = small_disk / "p.h5ad"
    ran = typed("predict", "first", "--no-calibrate", "-o", out, cwd=project)
    assert str(out) in one_line(ran)
    assert [p.name for p in small_disk.iterdir()] == ["others"]


def test_packing_on_a_full_disk_fails_in_one_line_and_leaves_nothing(typed, project, small_disk):
    fill(small_disk, 100 * KB)
    names = anndata.read_h5ad(project / "cells.h5ad", backed="r").var_names
    np.savetxt(project / "genes.csv", np.array(names), fmt="%s")
    out = small_disk / "p.vcc"
    ran = typed("pack", "cells.h5ad", "--genes", "genes.csv", "-o", out, cwd=project)
    assert str(out) in one_line(ran)
    assert [p.name for p in small_disk.iterdir()] == ["others"]


def test_a_cache_without_room_is_no_hindrance_and_gets_nothing(vcell, small_disk):
    subprocess.run(["mount", "-o", "remount,size=64k", small_disk], check=True)
    with pytest.raises(OSError, match="space"):
        (small_disk / "others").write_bytes(b"\0" * 100 * KB)
    ran = vcell("--help", env={"VCELL_CACHE": str(small_disk)})
    assert ran.code == 0, ran.err
    assert "Commands:" in ran.out
    assert [p.name for p in small_disk.iterdir()] == ["others"]
