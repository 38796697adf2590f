"""Features of a gene as a target: its covariation with others in the training cells, and tables.

Expression loadings come from two decompositions that never see a held-out perturbation's cells:
of the training cells themselves (a randomised SVD that streams them a few times), and of the
training perturbations' effects. N genes, F features, R components, B batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.screen.pseudobulk import GroupMoments, indicator
from vcell.suggest import few

if TYPE_CHECKING:
    from collections.abc import Container

    from vcell.data.log_cells import LogCells

_PASSES = 3  # power iterations; each one squares the ratio of signal to noise
_EXTRA = 8  # components computed and dropped (Halko, Martinsson and Tropp 2011)


def covariance_loadings(
    cells: LogCells,
    rows: NDArray[np.int64],
    batch: NDArray[np.int64],
    seen: NDArray[np.bool_],
    *,
    rank: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return (N, R): each gene's correlation with the leading components of the cells `rows`.

    Cells are centred on the mean of their batch and genes scaled to unit variance, so that the
    components reflect neither batches nor highly expressed genes. Only the genes `seen` form them.
    """
    codes = np.full(len(batch), -1, np.int64)
    codes[rows] = batch[rows]
    found = GroupMoments.of(cells, codes, int(batch.max()) + 1)
    mean, sd = found.mean, found.within
    scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    mask = seen[:, None]
    basis = np.random.default_rng(seed).normal(size=(len(sd), min(rank + _EXTRA, seen.sum())))
    basis *= mask
    for _ in range(_PASSES):
        basis, _ = np.linalg.qr(_gram(cells, rows, batch, mean, scale, basis) * mask)
    image = _gram(cells, rows, batch, mean, scale, basis)  # Z'Z basis, of all genes
    values, vectors = np.linalg.eigh(basis.T @ image)
    values, vectors = np.maximum(values[::-1][:rank], 1e-12), vectors[:, ::-1][:, :rank]
    return np.asarray(image @ vectors / np.sqrt(values * len(rows)))


def _gram(
    cells: LogCells,
    rows: NDArray[np.int64],
    batch: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    basis: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return Z'Z basis, Z the centred and scaled cells, without forming Z."""
    scaled = basis * scale[:, None]
    offset = mean @ scaled  # (B, R)
    out = np.zeros_like(basis)
    weight = np.zeros((len(mean), basis.shape[1]))
    for numbers, block in cells.blocks(rows):
        projected = block @ scaled - offset[batch[numbers]]
        out += block.T @ projected
        weight += indicator(batch[numbers], len(mean)) @ projected
    return (out - mean.T @ weight) * scale[:, None]


def response_loadings(
    delta: NDArray[np.float32], target: NDArray[np.int64], rank: int
) -> NDArray[np.float64]:
    """Return (N, R): how each gene responds along the leading directions of the training effects.

    A target's own knock-down is left out: it identifies the perturbation, and is not known for
    perturbations that were never measured.
    """
    centred = delta - delta.mean(axis=0)
    hit = np.flatnonzero(target >= 0)
    centred[hit, target[hit]] = 0
    _, values, genes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    rank = min(rank, len(delta) - 1)
    return np.asarray(genes[:rank].T * values[:rank] / np.sqrt(len(delta)))


@dataclass(frozen=True)
class FeatureBlock:
    """One source of features: (genes, F) values of the genes it knows."""

    source: str
    genes: list[str]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Joined:
    """Features of several sources: (M,) genes, (M, F) values, (B,) names and widths of blocks."""

    genes: NDArray[np.str_]
    values: NDArray[np.float32]
    blocks: NDArray[np.str_]
    widths: NDArray[np.int64]


def combine(blocks: list[FeatureBlock], targets: list[str]) -> Joined:
    """Return the genes that any block knows, and their features, joined.

    Columns are centred and each block scaled, so that no source outweighs the others. A gene that a
    block lacks gets the block's mean, 0; targets for which this happens are reported.
    """
    genes = list(dict.fromkeys(gene for block in blocks for gene in block.genes))
    place = {gene: i for i, gene in enumerate(genes)}
    widths = [block.values.shape[1] for block in blocks]
    features, start = np.zeros((len(genes), sum(widths)), np.float32), 0
    for block, width in zip(blocks, widths, strict=True):
        centred = block.values - block.values.mean(axis=0)
        rows = [place[gene] for gene in block.genes]
        features[rows, start : start + width] = centred / max(float(centred.std()), 1e-12)
        start += width
        _tell(block, targets, place)
    names = [block.source for block in blocks]
    return Joined(
        np.array(genes, np.str_), features, np.array(names, np.str_), np.array(widths, np.int64)
    )


def _tell(block: FeatureBlock, targets: list[str], anywhere: Container[str]) -> None:
    """Report the targets that this source lacks but another one has."""
    known = set(block.genes)
    n_known = sum(gene in known for gene in targets)
    lost = [gene for gene in targets if gene not in known and gene in anywhere]
    text = f"features: {block.source} knows {n_known} of {len(targets)} targets"
    if lost:
        text += f"; the mean stands for {few(lost)}"
    console.say(text)
