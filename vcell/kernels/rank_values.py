"""Rank value encoding: the genes of a cell as tokens, the most unusual expression first.

A gene's value is ``count / total * 10,000 / median`` in float64, as in Geneformer. Columns with the
same token are added up first. Equal values are ordered by ascending token.

Legend: ``C`` cells of a block, ``N`` its non-zeros, ``G`` columns, ``V`` tokens of the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 11  # bits of a radix digit: 2,048 counters fit the L1 cache
_DIGITS = 6  # 66 bits hold a float64
_SCALE = 10_000.0


@njit(nogil=True, cache=True)
def rank_values(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[Any],
    token_of: NDArray[np.int32],
    medians: NDArray[np.float64],
    longest: int,
    out: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Encode the cells of a block.

    Parameters
    ----------
    indptr, indices, data
        CSR; zeros may be stored, and columns may be in any order.
    token_of
        ``[G]``: token of each column, -1 for none.
    medians
        ``[V]``: median of each token's gene.
    longest
        Maximum number of tokens of a cell.
    out
        Receives the tokens, cell after cell; at least ``C * min(longest, V)`` long, or ``N``.

    Returns
    -------
    tuple of arrays
        ``[C]`` each: tokens written for the cell, its genes with a token before truncation, and
        those among them with the same value as a gene before them.
    """
    n_cells, n_tokens = len(indptr) - 1, len(medians)
    lengths = np.zeros(n_cells, np.int64)
    found = np.zeros(n_cells, np.int64)
    ties = np.zeros(n_cells, np.int64)
    sums = np.zeros(n_tokens, np.float64)
    keys, other_keys = np.empty(n_tokens, np.uint64), np.empty(n_tokens, np.uint64)
    tokens, other_tokens = np.empty(n_tokens, np.int32), np.empty(n_tokens, np.int32)
    counts = np.zeros((_DIGITS, 1 << _BITS), np.int64)
    bits = np.empty(1, np.float64)
    as_key = bits.view(np.uint64)
    written = 0
    for cell in range(n_cells):
        total = 0.0
        low, high = n_tokens, -1
        for i in range(indptr[cell], indptr[cell + 1]):
            value = np.float64(data[i])
            total += value
            token = token_of[indices[i]]
            if token >= 0 and value != 0:
                sums[token] += value
                low, high = min(low, token), max(high, token)
        n = 0
        counts[:] = 0
        for token in range(low, high + 1):  # ascending tokens: a stable sort keeps them so
            if sums[token] > 0:
                bits[0] = sums[token] / total * _SCALE / medians[token]
                key = ~as_key[0]  # positive floats sort like their bits; inverted: largest first
                keys[n], tokens[n] = key, token
                for digit in range(_DIGITS):
                    counts[digit, (key >> np.uint64(_BITS * digit)) & np.uint64(2047)] += 1
                n += 1
            sums[token] = 0
        found[cell] = n
        for digit in range(_DIGITS):
            shift = np.uint64(_BITS * digit)
            if n and counts[digit, (keys[0] >> shift) & np.uint64(2047)] == n:
                continue  # all equal: no change
            place = 0
            for bucket in range(1 << _BITS):
                here = counts[digit, bucket]
                counts[digit, bucket] = place
                place += here
            for i in range(n):
                bucket = (keys[i] >> shift) & np.uint64(2047)
                to = counts[digit, bucket]
                counts[digit, bucket] += 1
                other_keys[to], other_tokens[to] = keys[i], tokens[i]
            keys, other_keys = other_keys, keys
            tokens, other_tokens = other_tokens, tokens
        for i in range(1, n):
            ties[cell] += keys[i] == keys[i - 1]
        kept = min(n, longest)
        out[written : written + kept] = tokens[:kept]
        lengths[cell] = kept
        written += kept
    return lengths, found, ties
