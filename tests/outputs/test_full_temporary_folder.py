"""Cells that are too large for memory, and a folder of temporary files (TMPDIR) without room."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import anndata
import pytest
import scipy.sparse as sp

from tests.support import in_this_process
from vcell.data import by_gene as stored_by_gene
from vcell.metrics import by_gene as transposed

COMMANDS = {
    "convert": ("convert", "{}", "out/copy.h5ad"),
    "de": ("de", "{}", "-o", "out/de.csv"),
    "effects": ("effects", "{}", "-o", "out/effects.parquet"),
    "evaluate": ("evaluate", "{}", "{}", "-o", "out/scores", "--cache", "out/cache"),
    "inspect": ("inspect", "{}", "--full", "--html", "out/page.html"),
    "pack": ("pack", "{}", "--genes", "genes.csv", "-o", "out/p.vcc"),
    "prepare": ("prepare", "{}", "-o", "out/store"),
    "select-genes": ("select-genes", "{}", "--n-genes", "50", "-o", "out/genes"),
    "train-vcc": ("train-vcc", "{}", "--model", "ridge", "--runs", "out/runs"),
}


@pytest.fixture
def full(small_disk, monkeypatch) -> Path:
    """A folder of temporary files that has one page left, and limits that hold no cells."""
    subprocess.run(["mount", "-o", "remount,size=64k", small_disk], check=True)
    (small_disk / "others").write_bytes(b"\0" * (64 * 1024 - 2 * 4096))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(stored_by_gene, "IN_MEMORY", 100)
    monkeypatch.setattr(transposed, "MEMORY", 100)
    return small_disk


@pytest.mark.parametrize("name", [*COMMANDS, "de of cells by cell", "evaluate of cells by cell"])
def test_it_is_said_in_one_sentence_and_nothing_is_left(folder, tmp_path, full, name):
    command, by_cell = name.partition(" of ")[::2]
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    cells.X = (sp.csr_matrix if by_cell else sp.csc_matrix)(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    shutil.copy(folder / "genes.csv", tmp_path)
    (tmp_path / "out").mkdir()
    words = [word.replace("{}", "cells.h5ad") for word in COMMANDS[command]]
    ran = in_this_process(words, tmp_path)
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    (told,) = (line for line in ran.err.splitlines() if line.startswith("error: "))
    assert f"the temporary file in {full} cannot be written: no space is left on the disk" in told
    assert "hint: set TMPDIR to a folder with more room" in ran.err
    assert "TMPDIR chooses where" in ran.err, "it is said before that there will be a file"
    assert [p.name for p in full.iterdir()] == ["others"]
    assert [p for p in (tmp_path / "out").rglob("*") if not p.is_dir()] == []
