"""Small predictions in the shape of both years' submissions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.evaluate.running import Here

GENES = [f"G{i:02d}" for i in range(30)]
NAMES = ("AAA", "BBB", "CCC")
CELLS = 4  # of each perturbation


def counts(n: int, seed: int = 0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(
        rng.poisson(0.8, (n, len(GENES))).astype(np.float32) + (rng.random((n, 1)) < 2)
    )


def prediction_2025(seed: int = 0) -> ad.AnnData:
    """Three perturbations and controls, raw counts."""
    labels = np.repeat([*NAMES, "non-targeting"], CELLS)
    obs = pd.DataFrame({"target_gene": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(counts(len(labels), seed), obs=obs, var=pd.DataFrame(index=GENES))


def prediction_2026(seed: int = 0) -> ad.AnnData:
    """Three perturbations in contexts A and B, raw counts, no controls."""
    labels = np.tile(np.repeat(NAMES, CELLS), 2)
    context = np.repeat(["A", "B"], len(NAMES) * CELLS)
    obs = pd.DataFrame(
        {"target_gene": labels, "context": context}, index=[f"c{i}" for i in range(len(labels))]
    )
    return ad.AnnData(counts(len(labels), seed), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Here:
    (tmp_path / "genes.csv").write_text("\n".join(GENES) + "\n")
    (tmp_path / "perts.csv").write_text("target_gene\n" + "\n".join(NAMES) + "\n")
    return Here(tmp_path, monkeypatch, capfd)


@pytest.fixture
def pack25(here: Here) -> Callable[..., object]:
    def call(*words: object) -> object:
        return here("pack", "p.h5ad", "-o", "p.vcc", "--genes", "genes.csv", *words)

    return call


@pytest.fixture
def pack26(here: Here) -> Callable[..., object]:
    def call(*words: object, file: str = "p.h5ad") -> object:
        return here(
            "pack", file, "-o", "p.vcc", "--rules", "vcc2026", "--contexts", "A,B",
            "--cells-per-perturbation", CELLS, "--genes", "genes.csv",
            "--perturbations", "perts.csv", *words,
        )  # fmt: skip

    return call
