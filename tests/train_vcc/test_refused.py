"""What cannot be learnt from is refused by `vcell train-vcc` in one line, before any training."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from vcell import console
from vcell.cli import run
from vcell.data.simulate import Simulator


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=600, genes=80, perturbations=15, umis=800.0, batches=3, seed=1).write(path)
    return anndata.read_h5ad(path)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())


def trained(adata, tmp_path, capsys, *words):
    """Return the exit code and what was said."""
    adata.write_h5ad(tmp_path / "changed.h5ad")
    code = run(["train-vcc", "changed.h5ad", "--model", "gp", *words])
    return code, capsys.readouterr().err


def is_control(adata):
    return (adata.obs["target_gene"] == "non-targeting").to_numpy()


def missing_values(adata):
    adata.X = adata.X.toarray()
    adata.X[7, 3] = np.nan


def controls_apart(adata):
    adata.obs["batch"] = np.where(is_control(adata), "monday", "tuesday")


def another_species(adata):
    adata.obs["target_gene"] = [
        str(name) if name == "non-targeting" else f"Mm{name}" for name in adata.obs["target_gene"]
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(missing_values, "NaN or infinite", id="NaN"),
        pytest.param(controls_apart, "no batch has both", id="controls in batches of their own"),
        pytest.param(another_species, "have no features", id="targets of another species"),
    ],
)
def test_such_cells_are_refused(clean, tmp_path, capsys, change, said):
    adata = clean.copy()
    change(adata)
    code, error = trained(adata, tmp_path, capsys)
    assert code == 2, error
    assert said in error
    assert "hint" in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_a_batch_without_controls_is_compared_with_the_others_aloud(clean, tmp_path, capsys):
    adata = clean[~(is_control(clean) & (clean.obs["batch"] == "batch2").to_numpy())].copy()
    code, said = trained(adata, tmp_path, capsys)
    assert code == 0
    assert "1 of 3 batches have no control cells" in said


def test_a_feature_table_of_another_species_is_refused(clean, tmp_path, capsys):
    np.savez(tmp_path / "mouse.npz", genes=["Actb", "Gapdh"], features=np.eye(2))
    code, error = trained(clean, tmp_path, capsys, "--features", "mouse.npz")
    assert code == 2
    assert "of the same species" in error
    assert not (tmp_path / "runs").exists()
