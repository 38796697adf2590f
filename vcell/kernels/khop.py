"""Neighbourhoods of genes in several relations, and the edges among the genes of a neighbourhood.

Legend: R relations, N genes, B samples, S genes of a sample, W = ceil(N / 64) words of a mask.
A row lists the in-neighbours of a gene. Rows of few genes are read from the CSR, rows of many as
bits: `place` (R, N) is the index of a row in `bits` (K, W), or -1. `indptr` (R, N + 1) counts from
the start of the joined `indices`. Serial, without the GIL.
"""

# ruff: noqa: FBT001  # numba compiles positional flags
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from vcell.kernels.intrinsic import Intrinsic, types
from vcell.kernels.kernel import njit

Array = NDArray[Any]


@Intrinsic
def _trailing_zeros(typing: Any, word: Any) -> Any:
    """Return the number of the lowest bit that is set, by a processor instruction."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), code


@njit(nogil=True, cache=True)
def wide_rows(indptr: Array, indices: Array, fewest: int, words: int) -> tuple[Array, Array]:
    """Write the rows of at least `fewest` genes as bits; return their indices and the bits."""
    n_relations, n = indptr.shape[0], indptr.shape[1] - 1
    place = np.full((n_relations, n), -1, np.int32)
    k = 0
    for r in range(n_relations):
        for t in range(n):
            if indptr[r, t + 1] - indptr[r, t] >= fewest:
                place[r, t] = k
                k += 1
    bits = np.zeros((k, words), np.uint64)
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    for r in range(n_relations):
        for t in range(n):
            row = place[r, t]
            if row >= 0:
                for e in range(indptr[r, t], indptr[r, t + 1]):
                    s = np.uint64(indices[e])
                    bits[row, s >> six] |= one << (s & low)
    return place, bits


@njit(nogil=True, cache=True)
def _step(
    frontier: Array, reached: Array, indptr: Array, indices: Array, place: Array, bits: Array
) -> None:
    """Add the in-neighbours of `frontier` in one relation to `reached`."""
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    for w in range(frontier.shape[0]):
        word = frontier[w]
        while word != 0:
            rest = word & (word - one)
            t = w * 64 + _trailing_zeros(word)
            word = rest
            row = place[t]
            if row >= 0:
                for i in range(reached.shape[0]):
                    reached[i] |= bits[row, i]
            else:
                for e in range(indptr[t], indptr[t + 1]):
                    s = np.uint64(indices[e])
                    reached[s >> six] |= one << (s & low)


@njit(nogil=True, cache=True)
def k_hop(
    seeds: Array, hops: int, apart: bool, indptr: Array, indices: Array, place: Array, bits: Array,
    words: int,
) -> Array:  # fmt: skip
    """Return (B, W) masks of the genes within `hops` of (B, S) seeds; negative seeds are skipped.

    `apart`: all hops of a path must be in one relation, and the neighbourhoods are united;
    otherwise a hop may use any relation. Seeds belong to their neighbourhood.
    """
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    out = np.zeros((seeds.shape[0], words), np.uint64)
    start = np.empty(words, np.uint64)
    visited = np.empty(words, np.uint64)
    frontier = np.empty(words, np.uint64)
    reached = np.empty(words, np.uint64)
    n_relations = indptr.shape[0]
    for b in range(seeds.shape[0]):
        start[:] = 0
        for seed in seeds[b]:
            if seed >= 0:
                s = np.uint64(seed)
                start[s >> six] |= one << (s & low)
        rounds = n_relations if apart else 1
        for first in range(rounds):
            visited[:] = start
            frontier[:] = start
            for _ in range(hops):
                reached[:] = 0
                for r in range(first, first + 1 if apart else n_relations):
                    _step(frontier, reached, indptr[r], indices, place[r], bits)
                for w in range(words):
                    frontier[w] = reached[w] & ~visited[w]
                    visited[w] |= reached[w]
            for w in range(words):
                out[b, w] |= visited[w]
    return out


@njit(nogil=True, cache=True)
def members(mask: Array, rank: Array) -> Array:
    """Return the genes of a (W,) mask, ascending, and write each one's number into `rank`.

    `rank` (N,) int32 is -1 for all other genes.
    """
    rank[:] = -1
    nodes = np.empty(rank.shape[0], np.int32)
    one = np.uint64(1)
    n = 0
    for w in range(mask.shape[0]):
        word = mask[w]
        while word != 0:
            rest = word & (word - one)
            t = w * 64 + _trailing_zeros(word)
            word = rest
            nodes[n] = t
            rank[t] = n
            n += 1
    return nodes[:n]


@njit(nogil=True, cache=True)
def room_for(nodes: Array, indptr: Array) -> int:
    """Return the number of edges in the rows of some genes: a bound on the edges among them."""
    total = 0
    for t in nodes:
        total += indptr[t + 1] - indptr[t]
    return total


@njit(nogil=True, cache=True)
def induced_csr(
    nodes: Array, rank: Array, indptr: Array, indices: Array, rows: Array, out: Array
) -> int:
    """Write the edges among `nodes` as CSR over their numbers; return the number of edges.

    Parameters
    ----------
    rows
        (n + 1,) int32, start of each row.
    out
        At least `room_for` + 1 sources.
    """
    n = 0
    for i in range(nodes.shape[0]):
        rows[i] = n
        t = nodes[i]
        for e in range(indptr[t], indptr[t + 1]):
            s = rank[indices[e]]
            out[n] = s  # written first and counted afterwards: without a branch
            n += s >= 0
    rows[nodes.shape[0]] = n
    return n


@njit(nogil=True, cache=True)
def induced_pairs(nodes: Array, rank: Array, indptr: Array, indices: Array, out: Array) -> int:
    """Write the edges among `nodes` as (2, at least `room_for` + 1) sources and targets."""
    n = 0
    for i in range(nodes.shape[0]):
        t = nodes[i]
        first = n
        for e in range(indptr[t], indptr[t + 1]):
            s = rank[indices[e]]
            out[0, n] = s
            n += s >= 0
        for k in range(first, n):
            out[1, k] = i
    return n


@njit(nogil=True, cache=True)
def induced_places(nodes: Array, rank: Array, indptr: Array, indices: Array, out: Array) -> int:
    """Write the positions in the CSR of the edges among `nodes`."""
    n = 0
    for i in range(nodes.shape[0]):
        t = nodes[i]
        for e in range(indptr[t], indptr[t + 1]):
            out[n] = e
            n += rank[indices[e]] >= 0
    return n
