"""`vcell simulate` as a user runs it."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from tests.support import peak_of


def test_it_writes_cells_and_truth_and_says_so(vcell, tmp_path):
    size = ["--n-cells", 400, "--genes", 200, "--perturbations", 9]
    ran = vcell("simulate", "c.h5ad", *size, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["n_cells"] == 400
    cells = anndata.read_h5ad(tmp_path / "c.h5ad")
    assert cells.shape == (400, 200)
    with np.load(tmp_path / "c.truth.npz", allow_pickle=False) as truth:
        assert truth["effect"].shape == (9, 200)
    again = vcell("simulate", "d.h5ad", *size)
    assert again.code == 0
    assert (anndata.read_h5ad(tmp_path / "d.h5ad").X != cells.X).nnz == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["c.h5ad", "--genes", "20"], "too few genes (20)"),
        (["c.h5ad", "--n-cells", "10"], "too few cells (10)"),
        (["c.txt"], "c.txt"),
        (["missing/c.h5ad"], "missing is not a folder"),
    ],
)
def test_impossible_simulations_are_one_line_and_leave_nothing(vcell, tmp_path, words, said):
    ran = vcell("simulate", *words)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cells(tmp_path):
    peaks = []
    for cells in (4_000, 24_000):
        words = ["simulate", "c.h5ad", "--n-cells", str(cells), "--genes", "12000"]
        peaks.append(peak_of(*words, cwd=tmp_path)[0])
    size = (tmp_path / "c.h5ad").stat().st_size / 2**20
    assert peaks[1] - peaks[0] < 0.15 * size
