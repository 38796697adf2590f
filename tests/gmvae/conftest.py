"""Counts of planted cell types, and one run that tests share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.support import PATIENCE, clean_environment

TYPES, GENES = 4, 120


def planted(cells: int, seed: int, *, shift: float = 0.0, unseen: int = 0) -> anndata.AnnData:
    """Draw cells of four types whose profiles differ in a third of the genes.

    `shift` moves the profile of all cells, as another study would; the last `unseen` cells are of
    a fifth type.
    """
    truth = np.random.default_rng(7)  # the types are the same whatever the seed
    base = truth.normal(0, 1.2, GENES)
    change = truth.normal(0, 1.6, (TYPES + 1, GENES)) * (truth.random((TYPES + 1, GENES)) < 0.33)
    moved = shift * truth.normal(0, 1, GENES)
    rng = np.random.default_rng(seed)
    kind = rng.choice(TYPES, cells, p=[0.4, 0.3, 0.2, 0.1])
    if unseen:
        kind[-unseen:] = TYPES
    rate = np.exp(base + change[kind] + moved)
    rate *= rng.gamma(8, 300 / 8, (cells, 1)) / rate.sum(1, keepdims=True)
    counts = rng.poisson(rng.gamma(3, rate / 3)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "kind": [f"type-{k}" for k in kind],
            "batch": [f"b{i % 2}" for i in range(cells)],
        },
        index=[f"cell{i}" for i in range(cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def run_vcell(*words: object, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {"VCELL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "vcell", *map(str, words)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("gmvae")


@pytest.fixture
def vcell(typed, home, monkeypatch):
    """Run the command line within this process, in one folder with one cache."""
    monkeypatch.setenv("VCELL_CACHE", str(home / "cache"))

    def run(*words):
        ran = typed(*map(str, words), cwd=home)
        return subprocess.CompletedProcess(words, ran.code, ran.out, ran.err)

    return run


@pytest.fixture(scope="session")
def cells(home):
    path = home / "cells.h5ad"
    planted(600, 1).write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def trained(home, cells):
    """A run with a tenth of the labels shown, and what it printed as JSON."""
    done = run_vcell(
        "train-gmvae", cells, "--labels", "kind", "--label-fraction", 0.1, "--max-steps", 150,
        "--json", cwd=home, cache=home / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told | {"run": str(home / told["run"])}
