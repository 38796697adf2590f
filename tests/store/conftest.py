"""Small screens with every kind of count, as files and as the matrix they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse

from vcell.store import Recipe, Store, prepare


@dataclass(frozen=True)
class Screen:
    """A file and what it holds."""

    path: Path
    x: csr_matrix
    obs: pd.DataFrame
    genes: list[str]


def make_screen(
    path: Path,
    n: int = 900,
    g: int = 120,
    *,
    density: float = 0.25,
    dtype: str = "f4",
    seed: int = 0,
) -> Screen:
    """Counts with empty cells, unseen genes and a few beyond 65,535."""
    rng = np.random.default_rng(seed)
    x = random_sparse(n, g, density, "csr", random_state=seed)
    x.data = np.ceil(rng.exponential(3, x.nnz))
    big = rng.choice(x.nnz, 12, replace=False)
    x.data[big] = [254, 255, 256, 65_534, 65_535, 65_536, 65_537, 70_000, 100_001, 999, 1000, 2**22]
    keep = np.ones((n, g), bool)
    keep[[0, n // 2, n - 1]] = False
    keep[:, [3, g - 1]] = False
    x = x.multiply(keep).tocsr().astype(dtype)
    x.eliminate_zeros()
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(rng.choice(["control", "A", "B", "C"], n)),
            "batch": pd.Categorical(rng.choice(["x", "y"], n)),
            "doublet": rng.random(n) < 0.1,
            "depth": rng.normal(size=n),
        },
        index=[f"cell-{i}" for i in range(n)],
    )
    genes = [f"MT-{i}" if i < 5 else f"G{i}" for i in range(g)]
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path, compression="gzip")
    return Screen(path, x, obs, genes)


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    return make_screen(tmp_path_factory.mktemp("screen") / "cells.h5ad")


@pytest.fixture(scope="session")
def store_path(screen: Screen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "cells.zarr"
    prepare([screen.path], path, Recipe())
    return path


@pytest.fixture
def store(store_path: Path) -> Store:
    return Store.open(store_path)


@pytest.fixture
def prepared(screen: Screen, tmp_path: Path) -> Callable[..., Store]:
    """Prepare the screen with some settings."""

    def make(**settings: object) -> Store:
        target = tmp_path / "made.zarr"
        prepare([screen.path], target, Recipe(**settings), overwrite=True)
        return Store.open(target)

    return make


def equal(a: csr_matrix, b: csr_matrix) -> bool:
    """The same matrix, values compared without rounding."""
    difference = a.astype(np.float64) - b.astype(np.float64)
    return a.shape == b.shape and abs(difference).sum() == 0
