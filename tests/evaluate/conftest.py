"""Small screens with strong and weak effects, as real cells and as predictions."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.evaluate.running import Here

GENES = [f"G{i:03d}" for i in range(120)]
TARGETS = ["G005", "G017", "G040", "G077"]
CONTROL = "non-targeting"


def screen(seed: int, cells: int = 40, controls: int = 90, effect: float = 1.2) -> ad.AnnData:
    """Counts of four knock-downs with programme-wide effects, the same truth for all seeds."""
    truth = np.random.default_rng(99)
    base = truth.gamma(0.6, 3.0, len(GENES)) + 0.05
    effects = {name: truth.normal(0, 0.5, len(GENES)) * effect for name in TARGETS}
    rng = np.random.default_rng(seed)
    labels = np.repeat([*TARGETS, CONTROL], [cells] * len(TARGETS) + [controls])
    rng.shuffle(labels)
    rate = np.stack([base * np.exp(effects.get(name, 0.0)) for name in labels])
    depth = rng.lognormal(0, 0.3, (len(labels), 1))
    counts = rng.poisson(rate * depth).astype(np.float32)
    obs = pd.DataFrame({"target_gene": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))


def logged(cells: ad.AnnData, target: float = 1e3) -> ad.AnnData:
    """The same cells as log1p of counts scaled to `target`."""
    cells = cells.copy()
    x = cells.X.toarray()
    x = np.log1p(x / (x.sum(axis=1, keepdims=True) / np.float32(target)))
    cells.X = sp.csr_matrix(x.astype(np.float32))
    return cells


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Here:
    """The command line in a folder with real.h5ad and pred.h5ad."""
    screen(1).write_h5ad(tmp_path / "real.h5ad")
    screen(2).write_h5ad(tmp_path / "pred.h5ad")
    return Here(tmp_path, monkeypatch, capfd)
