"""The kernel of `gp`: how similar the effects of two sets of target genes are.

Features come in blocks: expression, GO, Reactome, networks, other screens. The similarity f of two
genes in a block is the cosine of their features, or exp(-distance^2 / width) of the unit vectors,
and 0 for a gene that is not in the block. P perturbations, Q others, G target genes, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen

    Array = NDArray[np.float64]

WIDTHS = (None, 0.5, 1.0)  # of f; None: linear
_LARGE = 1000  # perturbations; larger kernels are inverted in place
_ENOUGH = 10  # targets that a block must have to be weighted by the data


@dataclass(frozen=True)
class KernelSettings:
    """Parameters of the kernel, the noise, and whether effects are centred on their mean.

    Attributes
    ----------
    width
        Index into `WIDTHS`.
    constant, size, own, features
        Weights of the constant, the product of sizes, common targets, and feature similarity.
    noise
        Added to the diagonal.
    centred
        Whether the mean effect is subtracted.
    mix
        (B,) weights of the blocks, which sum to 1; empty: equal weights.
    """

    width: int
    constant: float
    size: float
    own: float
    features: float
    noise: float
    centred: bool
    mix: tuple[float, ...] = ()


class Kernel:
    """The kernel of named perturbations, for any setting."""

    def __init__(self, targets: Screen, names: Sequence[str]) -> None:
        self.targets = targets
        self.columns = targets.block_columns()
        self.blocks = list(self.columns)
        members = targets.members(names)
        self.genes = sorted({gene for one in members for gene in one})
        self.rows = _indicator(members, self.genes)
        self.sizes = np.asarray(self.rows.sum(axis=1)).ravel()
        self.shared = (self.rows @ self.rows.T).tocoo()  # numbers of common targets
        self.units = self._units(self.genes)
        self._last: tuple[tuple[int, tuple[float, ...]], Array] | None = None

    @property
    def telling(self) -> list[int]:
        """Blocks with features of at least ten targets, or of half of them if that is fewer.

        If there are none: blocks with features of two targets or more.
        """
        known = np.array([(np.abs(unit).max(axis=1) > 0).sum() for unit in self.units])
        enough = known >= max(min(_ENOUGH, -(-len(self.genes) // 2)), 2)
        return np.flatnonzero(enough if enough.any() else known > 1).tolist()

    @property
    def apart(self) -> bool:
        """Whether every perturbation has one target, and no two have the same."""
        once = np.asarray(self.rows.sum(axis=0)).max(initial=0) <= 1
        return bool(once and (self.sizes == 1).all())

    def mix(self, setting: KernelSettings) -> tuple[float, ...]:
        """Return (B,) weights of the blocks."""
        return setting.mix or (1 / max(len(self.blocks), 1),) * len(self.blocks)

    def of(self, setting: KernelSettings) -> Array:
        """Return the kernel (P, P) of the named perturbations."""
        key = (setting.width, self.mix(setting))
        if self._last is None or self._last[0] != key:
            inner = self._similar(self.units, self.units, setting)
            self._last = None  # free it first: only one is in memory
            self._last = (key, np.asarray(self.rows @ (self.rows @ inner).T))
        found = self._last[1] * setting.features if setting.features else np.zeros(self._shape)
        if setting.own:
            found[self.shared.row, self.shared.col] += setting.own * self.shared.data
        found += setting.constant
        if setting.size:
            for i, size in enumerate(self.sizes):  # by rows, to avoid a second matrix in memory
                found[i] += setting.size * size * self.sizes
        return np.asarray(found)

    @property
    def _shape(self) -> tuple[int, int]:
        return (len(self.sizes), len(self.sizes))

    def across(self, names: Sequence[str], setting: KernelSettings) -> tuple[Array, Array]:
        """Return the kernel (Q, P) of other perturbations with these, and k(S, S) of the others."""
        members = self.targets.members(names)
        genes = sorted({gene for one in members for gene in one})
        rows, units = _indicator(members, genes), self._units(genes)
        sizes = np.asarray(rows.sum(axis=1)).ravel()
        place = {gene: i for i, gene in enumerate(self.genes)}
        inner = setting.features * self._similar(units, self.units, setting)
        for i, gene in enumerate(genes):
            if gene in place:
                inner[i, place[gene]] += setting.own
        found = np.asarray(self.rows @ (rows @ inner).T).T
        found += setting.constant + setting.size * np.outer(sizes, self.sizes)
        itself = setting.features * self._similar(units, units, setting)
        itself[np.diag_indices_from(itself)] += setting.own
        alone = setting.constant + setting.size * sizes**2
        alone += np.asarray(rows.multiply(rows @ itself).sum(axis=1)).ravel()
        return np.asarray(found), np.asarray(alone)

    def _units(self, genes: Sequence[str]) -> list[Array]:
        """Return each block's features (G, F) as unit vectors; 0 for a gene not in the block."""
        features = self.targets.pooled(genes).astype(np.float64)
        found = []
        for columns in self.columns.values():
            block = features[:, columns]
            length = np.linalg.norm(block, axis=1, keepdims=True)
            found.append(block / np.maximum(length, 1e-12))
        return found

    def _similar(self, a: list[Array], b: list[Array], setting: KernelSettings) -> Array:
        """Return the weighted similarity of genes (G, H)."""
        width = WIDTHS[setting.width]
        shape = (len(a[0]), len(b[0])) if a else (0, 0)
        total = np.zeros(shape)
        for one, other, weight in zip(a, b, self.mix(setting), strict=True):
            if not weight:
                continue
            inner = one @ other.T
            if width is not None:
                known = [np.abs(x).max(axis=1, initial=0) > 0 for x in (one, other)]
                inner *= 2 / width
                inner -= 2 / width
                np.exp(np.minimum(inner, 0, out=inner), out=inner)
                inner *= known[0][:, None]
                inner *= known[1]
            inner *= weight
            total += inner
        return total


def _indicator(members: Sequence[tuple[str, ...]], genes: Sequence[str]) -> sp.csr_array:
    """Return the matrix (P, G) of which genes are targets of which set."""
    place = {gene: i for i, gene in enumerate(genes)}
    rows = np.repeat(np.arange(len(members)), [len(one) for one in members])
    columns = np.array([place[gene] for one in members for gene in one], np.int64)
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), (len(members), len(genes)))


def noisy_inverse(kernel: Array, noise: float) -> Array:
    """Return the inverse of a kernel with noise; a large kernel is overwritten."""
    kernel[np.diag_indices_from(kernel)] += noise
    if len(kernel) < _LARGE:
        return np.asarray(np.linalg.inv(kernel), np.float64)
    inverse, failed = lapack.dpotrf(kernel.T, lower=0, overwrite_a=1)  # .T: in Fortran's order
    if not failed:
        inverse, failed = lapack.dpotri(inverse, lower=0, overwrite_c=1)
    if failed:
        raise RuntimeError("the kernel is not positive definite")
    for i in range(len(inverse)):
        inverse[i + 1 :, i] = inverse[i, i + 1 :]
    return np.asarray(inverse)
