"""An exact Gaussian process over gene sets, for a few thousand sets or a hundred thousand.

Up to `MOST` sets, the matrix over all pairs of sets is inverted, which also gives leave-one-group-
out predictions. Above that, the matrix is never built. Its products with vectors are computed from
genes,

    linear   A (K (A' x)),               A (T, G): which genes a set contains
    pair     read (K M K) at every pair, M (G, G): x summed over the sets that contain a pair
    within   f (f' x),                   f (T,): the similarity of genes within a set

and systems are solved by conjugate gradients. Groups are then left out in five parts.
G genes, T sets.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

from vcell import console
from vcell.graph.diffusion import kernels
from vcell.models.left_out import missed
from vcell.screen.split import TEST
from vcell_train_graph.kernels import KernelMixture, SetBlock, indicator, inverse_of, weighed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vcell_train_graph.problem import GraphProblem

    Array = NDArray[np.float64]
    Rows = NDArray[np.int64]

MOST = 4000  # largest number of sets for which the matrix is inverted
_WEIGHED = 500  # sets that determine the weights of blocks
_CLOSE = 1e-2  # tolerance of conjugate gradients, relative to the values; r changes by .001
_TURNS = 200


@lru_cache(maxsize=1)
def gene_kernels(problem: GraphProblem) -> dict[str, Array]:
    """Return kernels of the table's genes, from features and from every graph."""
    own = np.arange(problem.n_own)
    found: dict[str, Array] = {}
    if problem.features.shape[1]:
        x = problem.features[: problem.n_own]
        found["features"] = x @ x.T / max(float(np.square(x).sum(1).mean()), 1e-12)
    for relation in problem.graphs:
        near, far = kernels(relation, own)
        found |= {f"{relation.name}, near": near, f"{relation.name}, far": far}
    return found


def blocks(problem: GraphProblem) -> list[SetBlock]:
    """Return all kernels of sets."""
    found = [SetBlock("genes", "linear", None), SetBlock("genes", "pair", None)]
    for name, kernel in gene_kernels(problem).items():
        found += [SetBlock(name, "linear", kernel), SetBlock(name, "pair", kernel),
                  SetBlock(name, "within", kernel)]  # fmt: skip
    return found


def process(problem: GraphProblem, groups: Rows) -> tuple[Array, dict[str, float]]:
    """Solve the process.

    Parameters
    ----------
    problem
        The data; all sets that are not held out are in the training set.
    groups
        (T,) groups that are left out together.

    Returns
    -------
    tuple
        (T,) predictions of every set, with training sets left out together with their group; and
        the explained share of the variance of each block.
    """
    mean, sd = problem.scale
    values = (problem.values - mean) / sd
    known = np.flatnonzero(problem.known)
    some = drawn(known, groups, _WEIGHED, np.random.default_rng(0))
    mix = weighed(blocks(problem), problem.members[some], values[some], problem.n_own)
    solve = _inverted if len(known) <= MOST else _iterated
    return mean + sd * solve(mix, problem, values, known, groups), mix.shares


def _inverted(
    mix: KernelMixture, problem: GraphProblem, values: Array, known: Rows, groups: Rows
) -> Array:
    sets = problem.members[known]
    matrix = mix(sets, sets, problem.n_own)
    matrix[np.diag_indices_from(matrix)] += mix.noise
    inverse, _ = inverse_of(matrix)
    weight = inverse @ values[known]
    step = 2000
    found = np.concatenate(
        [
            mix(problem.members[i : i + step], sets, problem.n_own) @ weight
            for i in range(0, len(values), step)
        ]
    )
    found[known] = values[known] - missed(inverse, weight[:, None], groups[known])[:, 0]
    return found


class SetProducts:
    """Products of a mixture's matrix over sets with vectors, without building the matrix."""

    def __init__(self, mix: KernelMixture, members: Rows, n_genes: int) -> None:
        self.n_genes, self.n_sets = n_genes, len(members)
        self.has = indicator(members, n_genes)
        rows, keys = [], []
        for i, j in combinations(range(members.shape[1]), 2):
            there = np.flatnonzero((members[:, i] >= 0) & (members[:, j] >= 0))
            low = np.minimum(members[there, i], members[there, j])
            rows.append(there)
            keys.append(low * n_genes + np.maximum(members[there, i], members[there, j]))
        row, key = np.concatenate(rows), np.concatenate(keys)
        every, column = np.unique(key, return_inverse=True)
        self.pairs = np.divmod(every, n_genes)
        self.has_pairs = sp.csr_array(
            (np.ones(len(row)), (row, column)), shape=(self.n_sets, len(every))
        )
        self.parts = [
            (
                weight, block.kind,
                None if block.kernel is None else block.kernel.astype(np.float32),
                block.within(members) if block.kind == "within" else None,
            )
            for weight, block in zip(mix.weights, mix.blocks, strict=True)
        ]  # fmt: skip

    def __call__(self, x: Array) -> Array:
        """Return the product (T,) with a vector (T,)."""
        genes, pairs = np.zeros(self.n_genes), np.zeros(len(self.pairs[0]))
        found = np.zeros(self.n_sets)
        on_genes, on_pairs = self.has.T @ x, self.has_pairs.T @ x
        both = np.zeros((self.n_genes, self.n_genes), np.float32)
        one, other = self.pairs
        both[one, other] = both[other, one] = on_pairs
        for weight, kind, kernel, within in self.parts:
            if within is not None:
                found += weight * float(within @ x) * within
            elif kind == "linear":
                genes += weight * (on_genes if kernel is None else kernel @ on_genes)
            elif kernel is None:
                pairs += weight * on_pairs
            else:
                pairs += weight * (kernel @ both @ kernel)[one, other]
        return np.asarray(found + self.has @ genes + self.has_pairs @ pairs)


def _iterated(
    mix: KernelMixture, problem: GraphProblem, values: Array, known: Rows, groups: Rows
) -> Array:
    products = SetProducts(mix, problem.members, problem.n_own)
    found, weight, behind = np.zeros(len(values)), None, 0
    test = np.flatnonzero(problem.part == TEST)
    with console.progress("graph-gp", 6, unit="solves") as bar:
        for learn, left_out in left_out_parts(known, groups, test):
            weight, close = _solved(products, mix.noise, values, learn, weight)
            behind += not close
            found[left_out] = products(weight)[left_out]
            bar.advance(1)
    if behind:
        console.warn(f"graph-gp: {behind} of 6 solves stopped after {_TURNS} turns, not yet exact")
    return found


def _solved(
    products: SetProducts, noise: float, values: Array, learn: Rows, start: Array | None
) -> tuple[Array, bool]:
    """Return weights (T,) of the training sets, 0 elsewhere, and whether they converged."""
    seen = np.zeros(len(values))
    seen[learn] = 1.0
    operator = LinearOperator(
        (len(values), len(values)),
        matvec=lambda x: seen * products(seen * x.ravel()) + noise * x.ravel(),
        dtype=np.float64,
    )
    begin = None if start is None else seen * start
    found, code = cg(operator, seen * values, begin, rtol=_CLOSE, maxiter=_TURNS)
    return seen * found, code == 0


def left_out_parts(known: Rows, groups: Rows, test: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield training sets and sets to predict: all and the test sets, then five parts left out."""
    part = np.random.default_rng(0).permutation(int(groups.max()) + 1)[groups] % 5
    yield known, test
    for k in range(5):
        if (part[known] == k).any():
            yield known[part[known] != k], known[part[known] == k]


def drawn(rows: Rows, groups: Rows, most: int, rng: np.random.Generator) -> Rows:
    """Draw complete groups until there are enough sets."""
    if len(rows) <= most:
        return rows
    order = rng.permutation(np.unique(groups[rows]))
    place = np.empty(int(groups.max()) + 1, np.int64)
    place[order] = np.arange(len(order))
    ranked = rows[np.argsort(place[groups[rows]], kind="stable")]
    return np.sort(ranked[:most])
