"""Counts with ties, empty genes and two batches."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.evaluate.running import Here


def cells(seed: int = 0, n: int = 160, genes: int = 40) -> ad.AnnData:
    """Return cells of groups a, b, c and control; gene 7 is silent, gene 8 in one cell only."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c", "control"], n, p=[0.3, 0.2, 0.1, 0.4])
    rate = rng.gamma(0.7, 2.0, genes) * np.exp(
        0.6 * (labels == "a")[:, None] * rng.normal(size=genes)
    )
    counts = rng.poisson(rate).astype(np.float32)
    counts[:, 7] = 0
    counts[:, 8] = 0
    counts[3, 8] = 2
    obs = pd.DataFrame(
        {"perturbation": labels, "batch": rng.choice(["x", "y"], n)},
        index=[f"c{i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(genes)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Here:
    """Return the command line in a folder with cells.h5ad."""
    cells().write_h5ad(tmp_path / "cells.h5ad")
    return Here(tmp_path, monkeypatch, capfd)
