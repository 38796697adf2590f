"""Kernels of gene sets from kernels of genes, with weights of maximum likelihood.

With K a kernel of genes, the kernels of sets S and T are

    linear   sum of K_ij over i in S, j in T: effects of genes are additive
    pair     sum of K_ik K_jl + K_il K_jk over pairs {i, j} in S, {k, l} in T: those of pairs are
    within   the product of the similarities of genes within S, and within T

K is the identity (each gene, each pair by itself), a graph's diffusion, or products of features.
Blocks are scaled to mean 1 on their diagonal. The weights, including that of noise, maximise the
likelihood of the values. A block that explains nothing gets almost no weight.
n sets, G genes, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack
from scipy.optimize import minimize, nnls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Members = NDArray[np.integer]

Kind = Literal["linear", "pair", "within"]
_BLOCKS = 8  # blocks that enter the likelihood, the best ones by moments
_LEAST = 1e-4  # relative weight below which a block is left out


@dataclass(frozen=True, eq=False)
class SetBlock:
    """A kernel of sets.

    Attributes
    ----------
    name
        The source: a relation, features, genes.
    kind
        ``linear``, ``pair`` or ``within``.
    kernel
        (G, G) kernel of genes; None for the identity.
    """

    name: str
    kind: Kind
    kernel: Array | None

    def __call__(self, one: Members, other: Members, n_genes: int) -> Array:
        """Return the kernel (n, m), not scaled."""
        if self.kind == "within":
            return np.outer(self.within(one), self.within(other))
        a, b = indicator(one, n_genes), indicator(other, n_genes)
        if self.kernel is None:
            shared = np.asarray((a @ b.T).toarray())
            return shared if self.kind == "linear" else shared * (shared - 1) / 2
        rows = np.asarray((b @ self.kernel).T)  # (G, m): K summed over each T
        linear = np.asarray(a @ rows)
        if self.kind == "linear":
            return linear
        columns = np.asarray(a @ self.kernel)  # (n, G)
        squares = np.asarray(a @ np.asarray((b @ np.square(self.kernel)).T))
        by_row, by_column = a @ np.square(rows), np.asarray((b @ np.square(columns).T).T)
        return np.asarray((np.square(linear) - by_row - by_column + squares) / 2)

    def diagonal(self, sets: Members, n_genes: int) -> Array:
        """Return the diagonal (n,)."""
        step = 512
        parts = [sets[i : i + step] for i in range(0, len(sets), step)]
        return np.concatenate([np.diag(self(part, part, n_genes)) for part in parts])

    def within(self, sets: Members) -> Array:
        """Return the sum (n,) of K over pairs of different genes of a set."""
        assert self.kernel is not None
        found = np.zeros(len(sets))
        for i in range(sets.shape[1]):
            for j in range(i):
                there = (sets[:, i] >= 0) & (sets[:, j] >= 0)
                found[there] += self.kernel[sets[there, i], sets[there, j]]
        return found


def indicator(sets: Members, n_genes: int) -> sp.csr_array:
    """Return the matrix (n, G) of which genes a set contains."""
    there = sets >= 0
    rows = np.repeat(np.arange(len(sets)), there.sum(1))
    return sp.csr_array((np.ones(len(rows)), (rows, sets[there])), shape=(len(sets), n_genes))


@dataclass(frozen=True, eq=False)
class KernelMixture:
    """Blocks with weights, and noise."""

    blocks: tuple[SetBlock, ...]
    weights: Array  # (B,), including the scales of blocks
    noise: float
    shares: dict[str, float]  # of the variance explained by blocks, by name and kind

    def __call__(self, one: Members, other: Members, n_genes: int) -> Array:
        """Return the kernel (n, m), without noise."""
        total = np.zeros((len(one), len(other)))
        for weight, block in zip(self.weights, self.blocks, strict=True):
            total += weight * block(one, other, n_genes)
        return total


def weighed(
    blocks: Sequence[SetBlock], sets: Members, values: Array, n_genes: int
) -> KernelMixture:
    """Find the weights that maximise the likelihood of standardised values (n,)."""
    valid, scales, each = [], [], []
    for block in blocks:
        kernel = block(sets, sets, n_genes)
        if block.kind == "within":  # centred, since it has a single feature
            kernel -= kernel.mean(0) + kernel.mean(1)[:, None] - kernel.mean()
        scale = float(np.diag(kernel).mean())
        if scale > 1e-12:
            valid.append(block)
            scales.append(scale)
            each.append((kernel / scale).astype(np.float32))
    plain = [i for i, block in enumerate(valid) if block.kernel is None]
    some = sorted({*plain, *_by_moments(each, values)})
    valid, scales = [valid[i] for i in some], [scales[i] for i in some]
    each = [each[i] for i in some]
    weight, noise = _likeliest(each, values)
    used = [i for i in range(len(valid)) if weight[i] > _LEAST * (weight.sum() + noise)]
    shares = {
        f"{valid[i].name} {valid[i].kind}": float(weight[i] / (weight.sum() + noise)) for i in used
    }
    return KernelMixture(
        tuple(valid[i] for i in used),
        np.array([weight[i] / scales[i] for i in used]),
        noise,
        shares,
    )


def _by_moments(kernels: Sequence[NDArray[np.float32]], values: Array) -> list[int]:
    """Return the blocks that fit the products of values, the best first."""
    off = np.triu_indices(len(values), 1)
    product = np.outer(values, values)[off].astype(np.float32)
    flat = np.stack([k[off] for k in kernels])
    gram, cross = (flat @ flat.T).astype(np.float64), (flat @ product).astype(np.float64)
    gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) / len(gram) + 1e-12
    root = np.linalg.cholesky(gram).T
    weight, _ = nnls(root, np.linalg.solve(root.T, cross))
    alone = np.maximum(cross, 0) / np.diag(gram)
    order = np.argsort(-(weight + 1e-3 * alone), kind="stable")
    return [int(i) for i in order[:_BLOCKS] if weight[i] + alone[i] > 0] or [int(order[0])]


def _likeliest(kernels: Sequence[NDArray[np.float32]], values: Array) -> tuple[Array, float]:
    """Return the weights of blocks and of noise that maximise the likelihood."""
    n, b = len(values), len(kernels)
    flat = np.stack([k.ravel() for k in kernels])  # products with it run at memory speed

    def loss(logs: Array) -> tuple[float, Array]:
        weight = np.exp(logs)
        total = (weight[:-1].astype(np.float32) @ flat).reshape(n, n).astype(np.float64)
        total[np.diag_indices(n)] += weight[-1]
        inverse, log_det = inverse_of(total)
        alpha = inverse @ values
        value = 0.5 * (values @ alpha + log_det)
        inverse -= np.outer(alpha, alpha)
        each = 0.5 * (flat @ inverse.ravel().astype(np.float32)).astype(np.float64)
        return float(value), weight * np.append(each, 0.5 * np.trace(inverse))

    start = np.log(np.array([0.5 / b] * b + [0.5]) * max(float(np.var(values)), 1e-12))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(-12.0, 4.0)] * b + [(-4.0, 3.0)],
        options={"maxiter": 25, "ftol": 1e-6},
    )  # fmt: skip
    weight = np.exp(found.x)
    return np.asarray(weight[:-1]), float(weight[-1])


def inverse_of(matrix: Array) -> tuple[Array, float]:
    """Return the inverse of a positive definite matrix, and the logarithm of its determinant."""
    root, failed = lapack.dpotrf(matrix, lower=0, overwrite_a=0)
    if failed:
        raise RuntimeError("the kernel of the sets is not positive definite")
    log_det = 2 * float(np.log(np.diag(root)).sum())
    inverse, failed = lapack.dpotri(root, lower=0, overwrite_c=1)
    upper = np.triu(inverse)
    return np.asarray(upper + np.triu(upper, 1).T), log_det
