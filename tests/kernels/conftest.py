"""Matrices that the kernels must cope with."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcell.data import CellSource, open_cells


def draw(cells: int, genes: int, seed: int, *, high: float = 3.0) -> sparse.csr_matrix:
    """Draw counts of very unequal genes and cells; some of both are empty, some counts huge."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(-1.5, high / 2, genes)) * np.exp(rng.normal(0, 0.5, (cells, 1)))
    drawn = rng.poisson(rate).astype(np.float32)
    drawn[rng.random(cells) < 0.05] = 0
    drawn[:, rng.random(genes) < 0.05] = 0
    drawn[rng.integers(0, cells, 5), rng.integers(0, genes, 5)] = [5000, 70, 64, 63, 255]
    return sparse.csr_matrix(drawn)


def source_of(matrix: sparse.csr_matrix, **obs: object) -> CellSource:
    """Open a matrix as cells in memory."""
    frame = pd.DataFrame(obs, index=np.arange(matrix.shape[0]).astype(str))
    names = pd.DataFrame(index=[f"gene{i}" for i in range(matrix.shape[1])])
    return open_cells(anndata.AnnData(matrix, obs=frame, var=names))


@pytest.fixture(params=["counts", "one cell", "one gene", "empty", "dense rows", "fractions"])
def matrix(request: pytest.FixtureRequest) -> sparse.csr_matrix:
    """Every kind of matrix in turn."""
    kinds = {
        "counts": lambda: draw(1200, 90, 0),
        "one cell": lambda: draw(1, 40, 1),
        "one gene": lambda: draw(700, 1, 2),
        "empty": lambda: sparse.csr_matrix((600, 12), dtype=np.float32),
        "dense rows": lambda: sparse.csr_matrix(np.arange(1, 2501).reshape(50, 50) % 97 + 1.0),
        "fractions": lambda: draw(600, 50, 3).multiply(0.37).tocsr(),
    }
    return sparse.csr_matrix(kinds[request.param](), dtype=np.float32)
