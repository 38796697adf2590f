"""Edges of gene graphs: into CSR, without duplicates, and rewired at constant degrees.

Legend: N nodes, E edges; an edge goes from `source` to `target`. Row t of the CSR lists the sources
of t, ascending: the in-neighbours of t. Serial, without the GIL.
"""

# ruff: noqa: FBT001, PLR1714, SIM109  # numba compiles plain comparisons and positional flags
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def csr_order(source: Array, target: Array, n: int) -> tuple[Array, Array]:
    """Order edges by target, then source, stable: two counting sorts, O(N + E).

    Returns
    -------
    indptr, order
        (N + 1,) where each target's edges start; (E,) the edges in their order.
    """
    count = np.zeros(n + 1, np.int64)
    for s in source:
        count[s + 1] += 1
    for i in range(n):
        count[i + 1] += count[i]
    by_source = np.empty(source.shape[0], np.int32)
    for e in range(source.shape[0]):
        by_source[count[source[e]]] = e
        count[source[e]] += 1
    indptr = np.zeros(n + 1, np.int64)
    for t in target:
        indptr[t + 1] += 1
    for i in range(n):
        indptr[i + 1] += indptr[i]
    place = indptr[:-1].copy()
    order = np.empty(source.shape[0], np.int32)
    for edge in by_source:
        order[place[target[edge]]] = edge
        place[target[edge]] += 1
    return indptr, order


@njit(nogil=True, cache=True)
def merged(indptr: Array, indices: Array, weights: Array) -> tuple[Array, int, int]:
    """Merge equal edges of a CSR with sorted rows, and drop self-loops; in place.

    Of equal edges the largest weight is kept; `weights` may be empty.

    Returns
    -------
    new_indptr, self_loops, duplicates
        The first ``new_indptr[-1]`` entries of `indices` and `weights` are the merged edges.
    """
    n = indptr.shape[0] - 1
    weighted = weights.shape[0] > 0
    new = np.zeros(n + 1, np.int64)
    out = 0
    self_loops = 0
    duplicates = 0
    for t in range(n):
        first = out
        for e in range(indptr[t], indptr[t + 1]):
            s = indices[e]
            if s == t:
                self_loops += 1
                continue
            if out > first and indices[out - 1] == s:
                duplicates += 1
                if weighted and weights[e] > weights[out - 1]:
                    weights[out - 1] = weights[e]
                continue
            indices[out] = s
            if weighted:
                weights[out] = weights[e]
            out += 1
        new[t + 1] = out
    return new, self_loops, duplicates


@njit(nogil=True, cache=True)
def targets_of(indptr: Array) -> Array:
    """Return the row of every entry of a CSR: (E,)."""
    out = np.empty(indptr[-1], np.int32)
    for t in range(indptr.shape[0] - 1):
        for e in range(indptr[t], indptr[t + 1]):
            out[e] = t
    return out


@njit(nogil=True, cache=True)
def has_edge(indptr: Array, indices: Array, source: int, target: int) -> bool:
    """Whether the row of `target` lists `source`, by bisection."""
    low, high = indptr[target], indptr[target + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < source:
            low = middle + 1
        else:
            high = middle
    return bool(low < indptr[target + 1] and indices[low] == source)


@njit(nogil=True, cache=True)
def count_both_ways(indptr: Array, indices: Array) -> int:
    """Count the pairs of different nodes with edges in both directions."""
    found = 0
    for t in range(indptr.shape[0] - 1):
        for e in range(indptr[t], indptr[t + 1]):
            if indices[e] < t and has_edge(indptr, indices, t, indices[e]):
                found += 1
    return found


@njit(nogil=True, cache=True)
def answered(indptr: Array, indices: Array) -> Array:
    """Return (E,) whether the reverse edge exists."""
    found = np.zeros(indices.shape[0], np.bool_)
    for t in range(indptr.shape[0] - 1):
        for e in range(indptr[t], indptr[t + 1]):
            found[e] = has_edge(indptr, indices, t, indices[e])
    return found


@njit(nogil=True, cache=True)
def count_common(indptr: Array, indices: Array, other_indptr: Array, other: Array) -> int:
    """Count the edges that two CSR with sorted rows have in common."""
    found = 0
    for t in range(indptr.shape[0] - 1):
        k = other_indptr[t]
        for e in range(indptr[t], indptr[t + 1]):
            while k < other_indptr[t + 1] and other[k] < indices[e]:
                k += 1
            found += k < other_indptr[t + 1] and other[k] == indices[e]
    return found


@njit(nogil=True, cache=True)
def rewire(
    source: Array, target: Array, fixed: Array, n: int, tries: int, paired: bool, turn: bool,
    seed: int,
) -> int:  # fmt: skip
    """Swap ends of random pairs of edges in place: s>t, u>v become s>v, u>t.

    Every node keeps its numbers of sources and of targets. A swap that would make a self-loop or an
    existing edge is skipped.

    Parameters
    ----------
    fixed
        (F, 2) further edges (source, target) that stay and must not be duplicated.
    paired
        Edges have no direction and each is stored once: an edge exists if it is stored in either
        direction.
    turn
        Reverse every second edge before it is swapped. A node then keeps its number of neighbours,
        but not its number of outgoing edges.

    Returns
    -------
    swapped
        Number of swaps made.
    """
    np.random.seed(seed)
    words = (n + 63) // 64
    there = np.zeros((n, words), np.uint64)
    one = np.uint64(1)
    six, low = np.uint64(6), np.uint64(63)
    for e in range(source.shape[0]):
        s = np.uint64(source[e])
        there[target[e], s >> six] |= one << (s & low)
    for e in range(fixed.shape[0]):
        s = np.uint64(fixed[e, 0])
        there[fixed[e, 1], s >> six] |= one << (s & low)
    swapped = 0
    m = source.shape[0]
    if m < 2:
        return 0
    for _ in range(tries):
        i = np.random.randint(0, m)
        j = np.random.randint(0, m)
        s, t, u, v = source[i], target[i], source[j], target[j]
        if turn and np.random.randint(0, 2):
            u, v = v, u
        if s == u or t == v or s == v or u == t:
            continue
        su, uu = np.uint64(s), np.uint64(u)
        if there[v, su >> six] >> (su & low) & one or there[t, uu >> six] >> (uu & low) & one:
            continue
        if paired:
            tu, vu = np.uint64(t), np.uint64(v)
            if there[s, vu >> six] >> (vu & low) & one or there[u, tu >> six] >> (tu & low) & one:
                continue
        there[t, su >> six] &= ~(one << (su & low))
        began = np.uint64(source[j])
        there[target[j], began >> six] &= ~(one << (began & low))
        there[v, su >> six] |= one << (su & low)
        there[t, uu >> six] |= one << (uu & low)
        target[i], source[j], target[j] = v, u, t
        swapped += 1
    return swapped


@njit(nogil=True, cache=True)
def spread(indptr: Array, indices: Array, weights: Array, x: Array, out: Array) -> None:
    """Write the product of a CSR and `x` (N, C) to `out` (N, C); row by row."""
    columns = x.shape[1]
    for t in range(indptr.shape[0] - 1):
        for c in range(columns):
            out[t, c] = 0.0
        for e in range(indptr[t], indptr[t + 1]):
            s = indices[e]
            w = weights[e]
            for c in range(columns):
                out[t, c] += w * x[s, c]
