"""Gene features from sets and networks: short vectors that are close for similar genes.

G genes, S sets, R components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse import linalg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Table = tuple[list[str], NDArray[np.float32]]

_FEWEST = 3  # genes in a set; smaller ones tell little about other genes
_WIDEST = 0.1  # share of all genes, above which a set is uninformative
_RESTART = 0.5  # probability that a random walk returns to its start


def of_sets(sets: Mapping[str, Iterable[str]], rank: int) -> Table:
    """Return the genes and their features (G, R): latent semantic analysis of genes by their sets.

    A set has the weight log(G / its size), each gene's row has unit length, and the features are
    the leading singular vectors times their values. Sets of fewer than three genes or more than a
    tenth of all genes are left out, unless there are no others.
    """
    members = {name: sorted(set(genes)) for name, genes in sets.items()}
    all_genes = {gene for genes in members.values() for gene in genes}
    telling = {
        name: genes
        for name, genes in members.items()
        if _FEWEST <= len(genes) <= _WIDEST * len(all_genes)
    } or members
    genes = sorted({gene for one in telling.values() for gene in one})
    place = {gene: i for i, gene in enumerate(genes)}
    rows = [place[gene] for one in telling.values() for gene in one]
    sizes = np.array([len(one) for one in telling.values()])
    columns = np.repeat(np.arange(len(sizes)), sizes)
    weight = np.log((len(genes) + 1) / sizes)
    matrix = sp.csr_array((weight[columns], (rows, columns)), shape=(len(genes), len(sizes)))
    return genes, _leading(_unit_rows(matrix), rank)


def of_edges(
    edges: tuple[Sequence[str], Sequence[str], NDArray[np.float64]], rank: int, method: str
) -> Table:
    """Return the genes of a network and their features (G, R).

    Parameters
    ----------
    edges
        The two ends and the weight of each edge; of duplicates, the largest weight counts.
    rank
        Number of components.
    method
        ``diffusion``: the leading eigenvectors of the normalised network, in which genes are close
        if random walks from them, with restarts, meet. ``svd``: genes with the same neighbours are
        close.
    """
    genes, network = _network(*edges)
    rank = min(rank, len(genes) - 2)
    if method == "svd":
        return genes, _leading(_unit_rows(network), rank)
    start = np.random.default_rng(0).normal(size=len(genes))
    values, vectors = linalg.eigsh(network, k=rank + 1, which="LA", v0=start)
    order = np.argsort(-values)[1:]  # the first one is the degree
    reach = np.sqrt(_RESTART / (1 - (1 - _RESTART) * np.minimum(values[order], 1)))
    return genes, _steady(vectors[:, order] * reach)


def _network(
    one: Sequence[str], other: Sequence[str], weight: NDArray[np.float64]
) -> tuple[list[str], sp.csr_array]:
    """Return the genes, and the symmetric network divided by the square roots of degrees."""
    genes = sorted(set(one) | set(other))
    place = {gene: i for i, gene in enumerate(genes)}
    a, b = (np.array([place[gene] for gene in ends], np.int64) for ends in (one, other))
    valid = (a != b) & (weight > 0)
    low, high, weight = np.minimum(a, b)[valid], np.maximum(a, b)[valid], weight[valid]
    order = np.lexsort((-weight, high, low))  # the largest weight of a pair first
    low, high, weight = low[order], high[order], weight[order]
    new = np.ones(len(low), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    half = sp.csr_array((weight[new], (low[new], high[new])), shape=(len(genes), len(genes)))
    symmetric = (half + half.T).tocsr()
    degree = np.asarray(symmetric.sum(axis=1)).ravel()
    scale = sp.diags_array(np.where(degree > 0, degree, 1) ** -0.5)
    return genes, (scale @ symmetric @ scale).tocsr()


def _unit_rows(matrix: sp.csr_array) -> sp.csr_array:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sp.diags_array(1 / np.where(length > 0, length, 1)) @ matrix).tocsr()


def _leading(matrix: sp.csr_array, rank: int) -> NDArray[np.float32]:
    """Return the leading left singular vectors times their values."""
    rank = min(rank, min(matrix.shape) - 1)
    if rank < 1:
        return np.asarray(matrix.toarray(), np.float32)
    start = np.random.default_rng(0).normal(size=min(matrix.shape))
    left, values, _ = linalg.svds(matrix.astype(np.float64), k=rank, v0=start)
    order = np.argsort(-values)
    return _steady(left[:, order] * values[order])


def _steady(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Choose the sign of each column that makes its largest entry positive."""
    largest = np.abs(vectors).argmax(axis=0)
    sign = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return np.asarray(vectors * np.where(sign == 0, 1, sign), np.float32)
