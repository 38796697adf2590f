"""Cells to give to layers, for tests."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from vcell.nn.compressed import CompressedRows


def rows_of(counts: np.ndarray, **more: torch.Tensor) -> CompressedRows:
    """Compress counts; what the network sees of them is log1p of counts per thousand."""
    x = sparse.csr_matrix(counts.astype(np.float32))
    x.sort_indices()
    library = np.asarray(x.sum(1)).ravel()
    scale = 1000 / np.maximum(library, 1)
    values = np.log1p(x.data * np.repeat(scale, np.diff(x.indptr)))
    return CompressedRows(
        torch.from_numpy(x.indptr.astype(np.int64)), torch.from_numpy(x.indices.astype(np.int32)),
        torch.from_numpy(x.data), torch.from_numpy(values.astype(np.float32)),
        torch.from_numpy(library.astype(np.float32)), counts.shape[1], more,
    )  # fmt: skip


def draw_counts(seed: int, cells: int = 70, genes: int = 1100) -> np.ndarray:
    """Draw counts, most of them zero, some huge, one cell empty."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(0.2, 0.6, (cells, genes)))
    x[rng.integers(0, cells, 20), rng.integers(0, genes, 20)] = rng.integers(50, 60_000, 20)
    x[5] = 0
    return x
