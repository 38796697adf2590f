"""Null genes for each tested gene, matched in detection and rank."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.geneformer.tokens import TokenCells
    from vcell_isp.design import PerturbedGenes


def profile(cells: TokenCells, n_tokens: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each token's share of cells that have it, and its mean relative rank in them."""
    lengths = cells.lengths
    place = np.arange(len(cells.tokens)) - np.repeat(cells.indptr[:-1], lengths)
    relative = place / np.repeat(np.maximum(lengths, 1), lengths)
    seen = np.bincount(cells.tokens, minlength=n_tokens)
    rank = np.bincount(cells.tokens, relative, n_tokens) / np.maximum(seen, 1)
    return seen / max(len(cells), 1), rank


def nearest(
    tokens: NDArray[np.int64],
    pool: NDArray[np.int64],
    detection: NDArray[np.float64],
    rank: NDArray[np.float64],
    n: int,
) -> NDArray[np.int64]:
    """Return ``[W, n]`` the pool's tokens nearest to each of `tokens`, never itself.

    Distances are in log-odds of detection and in relative rank, each divided by its spread.
    """
    n_cells_bound = 1e-4
    share = np.clip(detection, n_cells_bound, 1 - n_cells_bound)
    axes = np.stack([np.log(share / (1 - share)), rank], 1)
    spread = axes[pool].std(0)
    axes = axes / np.where(spread > 0, spread, 1)
    out = np.empty((len(tokens), min(n, max(len(pool) - 1, 0))), np.int64)
    for row, token in enumerate(tokens):
        distance = np.square(axes[pool] - axes[token]).sum(1)
        distance[pool == token] = np.inf
        out[row] = pool[np.argsort(distance, kind="stable")[: out.shape[1]]]
    return out


def matched(genes: PerturbedGenes, cells: TokenCells, n: int) -> PerturbedGenes:
    """Choose nulls for each tested gene, among genes of the cells that are not tested."""
    n_tokens = int(max(cells.tokens.max(initial=0), *genes.tested)) + 1
    detection, rank = profile(cells, n_tokens)
    pool = np.flatnonzero(detection > 0)
    pool = pool[(pool > 3) & ~np.isin(pool, genes.tested)]
    if len(pool) <= n:
        raise UserError(
            f"{n} nulls are to be chosen from {console.count(len(pool), 'gene')} of the cells"
        )
    tested = np.array(genes.tested, np.int64)
    found = nearest(tested, pool, detection, rank, n)
    controls = {int(t): tuple(int(c) for c in row) for t, row in zip(tested, found, strict=True)}
    return replace(genes, controls=controls)
