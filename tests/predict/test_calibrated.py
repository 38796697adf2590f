"""Effects are scaled so that as many genes change as in measured perturbations."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from vcell_predict.cells.pool import Pool
from vcell_predict.strength.curve import MOST, SignificanceCurve, strength, unseen
from vcell_predict.strength.significant import count, z_scores

from vcell.cli import run
from vcell.data.simulate import Simulator


def significant(adata, names):
    """Count the significant genes of perturbations in a file of log1p values."""
    label = adata.obs["target_gene"].to_numpy()
    cells = sp.csr_array(adata.X)
    groups = [cells[label == name] for name in names]
    return count(z_scores(cells[label == "non-targeting"], groups))


def test_the_curve_finds_the_law_that_measured_perturbations_follow():
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(40, 500)) * np.geomspace(0.02, 0.3, 40)[:, None]
    cells = rng.integers(50, 400, 40)
    size = np.square(delta).sum(axis=1) * cells
    numbers = np.rint(np.maximum(6 * np.log(size) - 10, 0) ** 2).astype(int)
    kept = numbers > 0
    curve = SignificanceCurve.fit(
        numbers[kept], cells[kept], delta[kept], np.zeros(kept.sum()), 500, 0.0
    )
    assert np.allclose(
        curve.expected(delta[kept], cells[kept]), numbers[kept].clip(max=500), atol=9
    )
    more = curve.expected(delta[:1] * np.array([[1], [2], [4], [100]]), np.full(4, 100))
    assert (np.diff(more) >= 0).all()
    assert more[-1] <= 500


def test_the_unseen_part_of_effects_excludes_noise():
    rng = np.random.default_rng(1)
    known, hidden, noise = (rng.normal(size=(200, 300)) * s for s in (0.2, 0.3, 0.1))
    found = unseen(known, known + hidden + noise, np.full(200, 0.01))
    assert found == pytest.approx(300 * 0.3**2, rel=0.05)
    assert unseen(known, known + noise, np.full(200, 0.01)) == pytest.approx(0, abs=0.5)


def test_the_strength_meets_the_number_within_its_bounds_and_stays_1_where_nothing_helps():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(4, 2000)) * 1.5
    z[3] = 0.01
    got, numbers = strength(z, np.array([float(count(z[:1] * 1.3)[0]), 1e6, 0.0, 50.0]))
    assert got[0] == pytest.approx(1.3, rel=0.03)
    assert got[1] == MOST
    assert got[2] < 1
    assert got[3] == 1
    assert numbers.tolist() == count(z * got[:, None]).tolist()


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A simulated screen, and a run that held out a third of its perturbations."""
    folder = tmp_path_factory.mktemp("screen")
    design = {"cells": 6000, "genes": 800, "perturbations": 60, "umis": 3000.0, "batches": 2}
    Simulator(**design, seed=5).write(folder / "cells.h5ad")
    # the mean's effects are far too small; those of the other models leave little to correct
    words = ["--runs", folder / "runs", "--model", "mean", "--test-share", "0.3"]
    assert run([*map(str, ["train-vcc", folder / "cells.h5ad", *words])]) == 0
    return folder


def test_the_number_of_significant_genes_comes_nearer_to_that_of_held_out_cells(screen, capsys):
    found = {}
    for how in ("calibrate", "no-calibrate"):
        words = ["predict", "latest", "--runs", screen / "runs", f"--{how}", "-o", f"{how}.h5ad"]
        assert run([*map(str, words)]) == 0
        found[how] = anndata.read_h5ad(f"{how}.h5ad")
    assert "significant genes (median)" in capsys.readouterr().out
    names = [n for n in found["calibrate"].obs["target_gene"].cat.categories if "GENE" in n]
    measured = anndata.read_h5ad(screen / "cells.h5ad")
    n = measured.n_obs
    pool = Pool(sp.csr_array(measured.X), np.arange(n), np.zeros(n, np.int64))
    measured.X = pool.logged(float(found["calibrate"].uns["vcell"]["target_sum"])).cells
    real = significant(measured, names)
    off = {
        how: np.abs(np.sqrt(significant(adata, names)) - np.sqrt(real)).mean()
        for how, adata in found.items()
    }
    assert len(names) == 18
    assert off["calibrate"] < 0.9 * off["no-calibrate"]
    # and what was promised is what the cells show
    table = found["calibrate"].uns["vcell"]["perturbations"]
    promised = dict(zip(table["perturbation"], table["genes_predicted"], strict=True))
    shown = significant(found["calibrate"], names)
    wanted = np.array([promised[name] for name in names])
    assert np.allclose(np.sqrt(shown), np.sqrt(wanted), atol=2)
