"""Fractions of types from sums of counts, by two methods that need only signatures.

A `Signature` is the mean counts of a cell of each type. With it, the expected counts of a bulk of
n_k cells of type k are ``sum_k n_k * mean_k``. `nnls` fits that by least squares, `em` by the
likelihood of multinomial counts; both give fractions of cells, not of RNA.

Legend: S samples, K types, G genes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.kernels.groups import cells_by_group, group_sums

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource

#: Maximum number of folds for signatures, so that a sample's cells are not in its signature.
FOLDS = 5
_AT_ONCE = 256  # samples
_EM_STEPS, _NEWTON_STEPS = 5, 100
_STILL = 1e-9  # tolerance: change of a share of RNA by a step of EM
_TINY = 1e-300


@dataclass(frozen=True)
class Signature:
    """Mean counts of a cell of each type.

    Attributes
    ----------
    mean
        ``[K, G]`` over all genes; zero for a type without cells.
    genes
        The columns that the methods use.
    """

    mean: NDArray[np.float64]
    genes: NDArray[np.int64]

    @classmethod
    def of(
        cls, totals: NDArray[np.integer], cells: NDArray[np.integer], n_genes: int = 0
    ) -> Signature:
        """Make a signature from the sums of each type's counts and its number of cells.

        Parameters
        ----------
        totals, cells
            ``[K, G]`` and ``[K]``.
        n_genes
            Number of genes to use: those that differ most between types, relative to the noise of
            counts. 0: all that any type expresses.
        """
        mean = totals / np.maximum(cells, 1)[:, None]
        there = mean.sum(axis=1) > 0
        profile = mean[there] / mean[there].sum(axis=1, keepdims=True)
        average = profile.mean(axis=0) if there.any() else np.zeros(mean.shape[1])
        differ = np.square(profile - average).sum(axis=0) / np.where(average > 0, average, 1)
        some = np.flatnonzero(average > 0)
        if 0 < n_genes < len(some):
            some = np.sort(some[np.argsort(-differ[some], kind="stable")[:n_genes]])
        return cls(mean, some)


@dataclass(frozen=True)
class Signatures:
    """A signature for each group of samples, learnt from the cells of other groups.

    Attributes
    ----------
    of_group
        Index of each group's signature.
    each
        The signatures.
    apart
        Whether samples and their signatures have no cells in common.
    """

    of_group: NDArray[np.int64]
    each: tuple[Signature, ...]
    apart: bool

    @classmethod
    def learn(cls, source: CellSource, pools: Pools, n_genes: int = 0) -> Signatures:
        """Learn signatures in one pass over the cells.

        Groups of different splits, or else of different patients, are divided into at most `FOLDS`
        folds; the signature of a fold is learnt from the cells of the other folds.
        """
        units = [g.split if g.split is not None else g.by for g in pools.groups]
        names = list(dict.fromkeys(units))
        fold = np.array([names.index(unit) % FOLDS for unit in units], np.int64)
        n, k = int(fold.max()) + 1, len(pools.types)
        cells = np.zeros((n, k), np.int64)
        np.add.at(cells, fold, pools.sizes)
        totals = _totals(source, pools, fold, n)
        if n == 1:
            return cls(fold, (Signature.of(totals[0], cells[0], n_genes),), apart=False)
        rest = [(totals.sum(0) - totals[f], cells.sum(0) - cells[f]) for f in range(n)]
        return cls(fold, tuple(Signature.of(*one, n_genes) for one in rest), apart=True)

    def estimate(
        self, method: str, counts: NDArray[Any], group: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return ``[S, K]`` fractions of samples of these groups, by one of `METHODS`."""
        found = np.zeros((len(counts), len(self.each[0].mean)))
        for number, signature in enumerate(self.each):
            mine = self.of_group[group] == number
            if mine.any():
                found[mine] = METHODS[method](counts[mine], signature)
        return found


def _totals(source: CellSource, pools: Pools, fold: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Sum the counts of each fold and type: ``[n, K, G]``."""
    group, label = pools.codes()
    k = len(pools.types)
    codes = np.where(label >= 0, fold[group] * k + label, -1).astype(np.int32)
    totals = np.zeros((n * k, source.n_genes), np.int64)
    with console.progress("learning signatures", source.n_cells) as bar:
        for block in source.chunks():
            own = codes[block.rows]
            group_sums(
                block.indptr, block.indices, block.data, own, cells_by_group(own), 1.0, totals
            )
            bar.advance(len(block))
    return totals.reshape(n, k, -1)


def nnls(counts: NDArray[Any], signature: Signature) -> NDArray[np.float64]:
    """Return ``[S, K]`` fractions by non-negative least squares.

    Genes are weighted by one over the mean of the types' profiles, the variance of counts;
    otherwise the few genes with most counts would dominate the fit.

    Parameters
    ----------
    counts
        ``[S, G]`` sums of counts, on any scale.
    """
    from scipy.optimize import nnls as solved

    a = signature.mean[:, signature.genes]
    there = np.flatnonzero(a.sum(axis=1) > 0)
    if not len(there):  # scipy's solver would crash the process
        return np.zeros((len(counts), len(signature.mean)))
    a = a[there]
    weight = 1 / np.sqrt((a / a.sum(axis=1, keepdims=True)).mean(axis=0))
    a = (a * weight).T
    found = np.zeros((len(counts), len(signature.mean)))
    # the problem in K dimensions: |a p - b|^2 = |r p - q^T b|^2 + a term without p
    q, r = np.linalg.qr(a)
    for first in range(0, len(counts), _AT_ONCE):
        bulk = counts[first : first + _AT_ONCE, signature.genes] * weight
        size = np.sqrt(np.square(bulk).sum(axis=1, keepdims=True))
        rotated = (bulk / np.where(size > 0, size, 1)) @ q
        for row, target in enumerate(rotated, start=first):
            found[row, there] = solved(r, target)[0]
    return _shares(found)


def em(counts: NDArray[Any], signature: Signature) -> NDArray[np.float64]:
    """Return ``[S, K]`` fractions by the fixed point of expectation and maximisation.

    Counts are multinomial with the profile ``sum_k w_k phi_k``, where phi_k are the shares of genes
    in type k's counts: ``w_k <- w_k sum_g b_g phi_kg / sum_j w_j phi_jg``, divided by the sum of b.
    w are shares of RNA; divided by each type's mean counts, shares of cells. These steps are tiny
    for similar types, so after a few of them Newton's method finds the same point, the maximum of a
    concave likelihood.

    Parameters
    ----------
    counts
        ``[S, G]`` sums of counts.
    """
    a = signature.mean[:, signature.genes]
    size = a.sum(axis=1)
    there = np.flatnonzero(size > 0)
    profile = a[there] / size[there, None]
    found = np.zeros((len(counts), len(signature.mean)))
    late = 0
    for first in range(0, len(counts), _AT_ONCE):
        bulk = counts[first : first + _AT_ONCE, signature.genes].astype(np.float64)
        total = bulk.sum(axis=1, keepdims=True)
        bulk /= np.where(total > 0, total, 1)
        share = np.full((len(bulk), len(there)), 1 / max(len(there), 1))
        for _ in range(_EM_STEPS):
            share *= (bulk / np.maximum(share @ profile, _TINY)) @ profile.T
        for row in np.flatnonzero(total[:, 0] > 0):
            seen = np.flatnonzero(bulk[row])
            share[row], settled = _maximum(bulk[row, seen], profile[:, seen], share[row])
            late += not settled
        found[first : first + _AT_ONCE, there] = share / size[there]
    if late:
        console.warn(f"not settled: {late:,} of {console.count(len(counts), 'sample')}")
    return _shares(found)


def _maximum(
    bulk: NDArray[np.float64], profile: NDArray[np.float64], share: NDArray[np.float64]
) -> tuple[NDArray[np.float64], bool]:
    """Maximise ``sum_g b_g log sum_k w_k phi_kg - sum_k w_k`` over w >= 0, where w sums to one.

    Each step solves the quadratic model, a small problem of non-negative least squares (Kim et al.
    2020, mixsqp), with a step size for which the likelihood increases. Returns w, and whether it is
    a fixed point of expectation and maximisation.
    """
    from scipy.optimize import nnls as solved

    mixed = share @ profile
    value = bulk @ np.log(mixed) - share.sum()
    for _ in range(_NEWTON_STEPS):
        ratio = bulk / mixed
        rise = profile @ ratio - 1
        if np.abs(share * rise).max() < _STILL and rise.max() < _STILL**0.5:
            return share, True
        curve = (profile * (ratio / mixed)) @ profile.T
        curve[np.diag_indices_from(curve)] += 1e-10 * np.trace(curve)  # for identical types
        root = np.linalg.cholesky(curve).T
        aim = solved(root, root @ share + np.linalg.solve(root.T, rise))[0]
        step, reached = 1.0, -np.inf
        while step > _STILL:
            new = share + step * (aim - share)
            mixed = new @ profile
            if (mixed > 0).all() and (reached := bulk @ np.log(mixed) - new.sum()) > value:
                break
            step /= 2
        else:  # no improvement in float64
            return share, bool(np.abs(share * rise).max() < _STILL**0.5)
        share, value = new, reached
    return share, False


def _shares(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to sum one; zero rows stay zero."""
    total = amounts.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = amounts / np.where(total > 0, total, 1)
    return shares


Method = Callable[[NDArray[Any], Signature], NDArray[np.float64]]
METHODS: dict[str, Method] = {"nnls": nnls, "em": em}
