"""What is known of a gene as a target: how it varies with others in the training cells, and tables.

Expression loadings come from two decompositions that never see a held-out perturbation's cells:
of the training cells themselves (a randomised SVD that streams them a few times), and of the
training perturbations' effects. N genes, F features, R components, B batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.data.log_cells import LogCells

_PASSES = 3  # over the cells; each squares the gap between signal and noise
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

    Cells are centred on their batch and genes scaled to unit variance, so that neither batches nor
    highly expressed genes make the components; they are those of the genes `seen`.
    """
    mean, sd = _moments(cells, rows, batch)
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


def _moments(
    cells: LogCells, rows: NDArray[np.int64], batch: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean per batch (B, N) and the standard deviation within batches (N,)."""
    n_batches = int(batch.max()) + 1
    total, square = np.zeros((n_batches, cells.n_genes)), np.zeros(cells.n_genes)
    for numbers, block in cells.blocks(rows):
        total += (_indicator(batch[numbers], n_batches) @ block).toarray()
        square += np.asarray(block.multiply(block).sum(axis=0)).ravel()
    count = np.bincount(batch[rows], minlength=n_batches)[:, None]
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(square - (count * mean**2).sum(axis=0), 0) / len(rows))


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
        weight += _indicator(batch[numbers], len(mean)) @ projected
    return (out - mean.T @ weight) * scale[:, None]


def _indicator(codes: NDArray[np.int64], n: int) -> sp.csr_array:
    return sp.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), (n, len(codes)))


def response_loadings(
    delta: NDArray[np.float32], target: NDArray[np.int64], rank: int
) -> NDArray[np.float64]:
    """Return (N, R): how each gene responds along the leading directions of the training effects.

    A target's own knock-down is left out: it tells which perturbation it is, which is not known of
    a perturbation never seen.
    """
    centred = delta - delta.mean(axis=0)
    hit = np.flatnonzero(target >= 0)
    centred[hit, target[hit]] = 0
    _, values, genes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    rank = min(rank, len(delta) - 1)
    return np.asarray(genes[:rank].T * values[:rank] / np.sqrt(len(delta)))


def table(path: Path, genes: NDArray[np.str_]) -> NDArray[np.float64]:
    """Read a gene feature table (.npz with `genes` and `features`); NaN rows where it has none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names, values = file["genes"], np.asarray(file["features"], np.float64)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such feature table") from None
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a gene feature table: {error}",
            hint="an .npz with `genes` (names) and `features` (genes x features) is",
        ) from None
    if values.ndim != 2 or len(values) != len(names):
        raise UserError(f"{path}: features has shape {values.shape}, for {len(names)} genes")
    number = {str(name): i for i, name in enumerate(names)}
    row = np.array([number.get(str(gene), -1) for gene in genes])
    if (row < 0).all():
        raise UserError(
            f"{path} names none of the {len(genes):,} genes (its first: {names[0]})",
            hint="gene names must be those of the cells, of the same species",
        )
    console.say(f"features: {path} has {int((row >= 0).sum()):,} of {len(genes):,} genes")
    out: NDArray[np.float64] = values[row]
    out[row < 0] = np.nan
    return out


def combine(parts: list[NDArray[np.float64]], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Join feature blocks, each scaled to weigh the same; NaN rows where not usable."""
    joined = []
    for part in parts:
        known = usable & np.isfinite(part).all(axis=1)
        centred = part - part[known].mean(axis=0)
        joined.append(centred / max(float(np.sqrt((centred[known] ** 2).mean())), 1e-12))
    features = np.concatenate(joined, axis=1).astype(np.float32)
    features[~usable] = np.nan
    return features
