"""The cells of a benchmark, ranked once for all methods."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcell.data import open_cells
from vcell.errors import UserError
from vcell.geneformer import tokens
from vcell.geneformer.checkpoint import Geneformer
from vcell.geneformer.tokens import TokenCells
from vcell_isp_bench import IspBench, quality


@dataclass
class IspBenchRun:
    """What all methods share."""

    model: Geneformer
    device: torch.device
    cells: TokenCells
    labels: NDArray[Any] | None
    tokenise: float | None
    config: IspBench

    @property
    def n_layers(self) -> int:
        """Number of layers that all methods run: all but the last, as upstream does."""
        return self.model.shape.n_layers - 1

    @property
    def n_tokens(self) -> int:
        """Number of tokens in all cells."""
        return int(self.cells.lengths.sum())


def open_bench(
    path: Path | None, model: Geneformer, device: torch.device, config: IspBench
) -> IspBenchRun:
    """Rank the cells, or generate some with the lengths of a published screen."""
    if path is None:
        if config.label:
            raise UserError("--label needs a file of cells")
        return IspBenchRun(model, device, synthetic_cells(model, config), None, None, config)
    with open_cells(path, config.layer) as source:
        rng = np.random.default_rng(config.seed)
        rows = None
        if source.n_cells > config.max_cells:
            rows = np.sort(rng.choice(source.n_cells, config.max_cells, replace=False))
        labels = None
        if config.label is not None:
            labels = np.asarray(source.obs(config.label).values).astype(str)
        started = time.perf_counter()
        cells = tokens.encode(
            source, model.vocabulary, model.shape.n_positions, rows=rows,
            column=config.gene_column,
        )  # fmt: skip
        elapsed = time.perf_counter() - started
    if labels is not None:
        quality.refuse_few(labels[cells.rows])
    return IspBenchRun(
        model, device, cells, None if labels is None else labels[cells.rows], elapsed, config
    )


def synthetic_cells(model: Geneformer, config: IspBench) -> TokenCells:
    """Return cells of random genes with lengths as in SciPlex2 (mean 2,479 genes, log-normal)."""
    rng = np.random.default_rng(config.seed)
    known, longest = model.vocabulary, model.shape.n_positions
    n_genes = rng.lognormal(np.log(2479) - 0.18, 0.6, config.max_cells).astype(int)
    parts = []
    first = known.n_special + 2
    for n in n_genes:
        size = int(np.clip(n, 16, longest - known.n_special))
        genes = rng.choice(np.arange(first, len(known)), size, replace=False).astype(np.int32)
        frame = [known.cls] if known.cls is not None else []
        end = [known.eos] if known.eos is not None else []
        parts.append(np.concatenate([frame, genes, end]).astype(np.int32))
    lengths = [len(part) for part in parts]
    return TokenCells(
        np.arange(len(parts)), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(parts), n_genes.astype(np.int64), np.zeros(len(parts), np.int64),
    )  # fmt: skip
