"""Runs with several contexts (cell types): perturbations in each, or in one of them."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.models import SCREEN, Screen
from vcell.runs import Run


@pytest.fixture(scope="module")
def two_types(tmp_path_factory):
    """A run on two cell types, next to its file."""
    folder = tmp_path_factory.mktemp("types")
    design = {"cells": 3000, "genes": 250, "perturbations": 16, "cell_types": 2, "umis": 2500.0}
    Simulator(**design, seed=3).write(folder / "cells.h5ad")
    words = ["train-vcc", folder / "cells.h5ad", "--runs", folder / "runs", "--model", "ridge"]
    assert run([*map(str, words)]) == 0
    return folder


@pytest.fixture
def call(two_types, capsys):
    def call(*words):
        capsys.readouterr()
        folder = two_types / "runs"
        given = ["predict", "latest", "--runs", folder, "-o", "p.h5ad", "--overwrite", *words]
        return run([*map(str, given)]), capsys.readouterr().err

    return call


def test_every_context_gets_its_own_cells_and_controls(call, two_types):
    code, _ = call("--no-calibrate", "--n-cells", 150)
    assert code == 0
    screen = Screen.load(Run.open("latest", root=two_types / "runs").path / SCREEN)
    assert sorted(screen.contexts) == ["type1", "type2"]
    written = anndata.read_h5ad("p.h5ad")
    size = written.obs.groupby(["target_gene", "cell_type"], observed=True).size()
    held = set(screen.perturbations[screen.part == 2].tolist())
    assert {name for name, _ in size.index} == held | {"non-targeting"}
    measured = anndata.read_h5ad(two_types / "cells.h5ad").obs
    for context in ("type1", "type2"):
        wanted = (measured["target_gene"] == "non-targeting") & (measured["cell_type"] == context)
        assert size["non-targeting", context] == wanted.sum()
    # each is made from the controls of its context
    for name in held:
        for i, context in enumerate(screen.contexts):
            own = (written.obs["target_gene"] == name) & (written.obs["cell_type"] == context)
            if own.any():
                found = np.asarray(written.X[own.to_numpy()].mean(axis=0)).ravel()
                off = [np.abs(found - control).mean() for control in screen.control]
                assert np.argmin(off) == i


def test_one_context_is_predicted_by_name_and_lists_may_name_theirs(call, tmp_path):
    assert call("--context", "type2", "--n-cells", 20)[0] == 0
    assert set(anndata.read_h5ad("p.h5ad").obs["cell_type"]) == {"type2"}
    screen = anndata.read_h5ad("p.h5ad").obs["target_gene"].cat.categories
    name = next(n for n in screen if n != "non-targeting")
    (tmp_path / "list.csv").write_text(
        f"target_gene,n_cells,context\n{name},7,type1\n{name},9,type2\n"
    )
    assert call("--perturbations", "list.csv", "--controls", 0)[0] == 0
    assert anndata.read_h5ad("p.h5ad").obs["cell_type"].value_counts().to_dict() == {
        "type1": 7,
        "type2": 9,
    }
    code, said = call("--context", "type3")
    assert code == 2
    assert "has no context 'type3'" in said
    (tmp_path / "list.csv").write_text(f"target_gene,n_cells,context\n{name},7,moon\n")
    code, said = call("--perturbations", "list.csv")
    assert code == 2
    assert "in the context 'moon'" in said


def test_like_copies_the_context_of_each(call, two_types):
    measured = anndata.read_h5ad(two_types / "cells.h5ad")
    names = [n for n in measured.obs["target_gene"].cat.categories if n != "non-targeting"][:2]
    some = measured[measured.obs["target_gene"].isin([*names, "non-targeting"])].copy()
    some.write_h5ad("like.h5ad")
    code, said = call("--like", "like.h5ad", "--controls", 0, "--no-calibrate")
    assert code == 0, said
    keys = ["target_gene", "cell_type"]
    size = [
        a.obs[a.obs["target_gene"] != "non-targeting"].groupby(keys, observed=True).size().to_dict()
        for a in (anndata.read_h5ad("p.h5ad"), some)
    ]
    assert size[0] == size[1]
