"""Agreement of labels and clusters: accuracy, macro-F1, ARI, NMI, confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def confusion(truth: Array, found: Array, n: int) -> NDArray[np.int64]:
    """Return numbers of cells by true label (rows) and given label (columns)."""
    counts = np.bincount(truth * n + found, minlength=n * n)
    table: NDArray[np.int64] = counts.reshape(n, n).astype(np.int64)
    return table


def f1_of(table: Array) -> NDArray[np.float64]:
    """Return the F1 of each label: NaN if no cell has it or was given it."""
    right = np.diag(table).astype(float)
    both = table.sum(0) + table.sum(1)
    found: NDArray[np.float64] = np.full(len(table), np.nan)
    np.divide(2 * right, both, out=found, where=both > 0)
    return found


def macro_f1(table: Array) -> float:
    """Return the mean F1 over labels that occur or were given (as in scikit-learn)."""
    values = f1_of(table)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def adjusted_rand(one: Array, other: Array) -> float:
    """Return the adjusted Rand index of two clusterings."""
    table = _table(one, other)
    n = table.sum()
    pairs = _pairs(table).sum()
    rows, columns = _pairs(table.sum(1)).sum(), _pairs(table.sum(0)).sum()
    expected = rows * columns / max(_pairs(np.array([n]))[0], 1)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def mutual_information(one: Array, other: Array) -> float:
    """Return the mutual information, divided by the mean of the entropies (scikit-learn's NMI)."""
    table = _table(one, other) / len(one)
    rows, columns = table.sum(1), table.sum(0)
    entropies = _entropy(rows) + _entropy(columns)
    shared = _entropy(rows) + _entropy(columns) - _entropy(table.ravel())
    return 1.0 if entropies == 0 else float(max(2 * shared / entropies, 0.0))


def _table(one: Array, other: Array) -> Array:
    a, b = np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]
    width = b.max() + 1
    counts: Array = np.bincount(a * width + b, minlength=(a.max() + 1) * width)
    return np.asarray(counts.reshape(-1, width))


def _pairs(counts: Array) -> Array:
    return np.asarray(counts * (counts - 1) / 2)


def _entropy(shares: Array) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
