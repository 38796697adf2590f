"""Cells that cannot be used, of every command that reads some: one sentence, and nothing left.

The commands are those of test_every_end; a command may also do what it can with such cells.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from tests.outputs.test_every_end import GOES_ON, WRITES, run_of
from tests.support import in_this_process, shortly

READS = {
    name: {word for word in words if word.endswith(".h5ad") and "{" not in word}
    for name, words in WRITES.items()
}


def values(change: Any) -> Any:
    def changed(cells: anndata.AnnData) -> anndata.AnnData:
        x = sp.csr_matrix(cells.X, dtype=np.float32)
        change(x.data)
        cells.X = x
        return cells

    return changed


def renamed(cells: anndata.AnnData, *names: str) -> anndata.AnnData:
    cells.var_names = [*names, *cells.var_names[len(names) :]]
    return cells


def unlabelled(cells: anndata.AnnData) -> anndata.AnnData:
    cells.obs = cells.obs[[]]
    return cells


def first_half_empty(cells: anndata.AnnData) -> anndata.AnnData:
    x = sp.lil_matrix(cells.X)
    x[: cells.n_obs // 2] = 0
    cells.X = sp.csr_matrix(x)
    return cells


BAD = {
    "NaN": values(lambda x: x.__setitem__(3, np.nan)),
    "infinite": values(lambda x: x.__setitem__(3, np.inf)),
    "negative": values(lambda x: x.__setitem__(3, -2)),
    "not counts": values(lambda x: x.__imul__(0.37)),
    "nothing": values(lambda x: x.__imul__(0)),
    "half nothing": first_half_empty,
    "no cells": lambda cells: cells[:0].copy(),
    "one cell": lambda cells: cells[:1].copy(),
    "no genes": lambda cells: cells[:, :0].copy(),
    "one gene": lambda cells: cells[:, :1].copy(),
    "no labels": unlabelled,
    "one name twice": lambda cells: renamed(cells, "A", "A"),
    "other genes": lambda cells: renamed(cells, *(f"other{i}" for i in range(cells.n_vars))),
}
#: Which of them every command that makes something of cells' values must refuse.
NEVER = ("NaN", "infinite", "no cells", "no genes")
SUMMED = {name for name in WRITES if name.startswith("isp")}  # columns of one gene are one token
AS_IT_IS = {"convert target", "inspect html"}  # these show and copy whatever is there


@pytest.mark.parametrize(
    "name",
    shortly(
        [name for name in WRITES if READS[name]],
        *("effects output", "pseudobulk output", "train-bulk", "isp embed output"),
    ),
)
def test_bad_cells_are_refused_in_one_sentence_or_processed(folder, tmp_path, name):
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    words = [run_of(word, folder) for word in WRITES[name]]
    words = [word.replace("{}", "out/x") for word in words]
    for kind, spoilt in BAD.items():
        if name == "pipeline output" and kind not in NEVER:
            continue  # all its stages take minutes
        for file in READS[name]:
            spoilt(anndata.read_h5ad(folder / file)).write_h5ad(tmp_path / file)
        (tmp_path / "out").mkdir()
        before = {p.name for p in tmp_path.iterdir()}
        ran = in_this_process((*words, "--json"), tmp_path)
        said = ran.err + ran.out
        assert "Traceback" not in ran.err, f"{kind}: {ran.err}"
        assert ran.code in ((2,) if kind in NEVER and name not in AS_IT_IS else (0, 2)), kind
        if ran.code:
            assert json.loads(ran.out)["error"]["exit_code"] == 2
            assert sum(line.startswith("error: ") for line in ran.err.splitlines()) == 1
            left = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
            assert left == [] or name in GOES_ON, kind
        if kind == "one name twice" and name not in SUMMED:
            assert re.search("more than once: A|names that occurred before: of 1 gene", said), said
        shutil.rmtree(tmp_path / "out")
        for new in {p.name for p in tmp_path.iterdir()} - before:
            shutil.rmtree(tmp_path / new, ignore_errors=True)
