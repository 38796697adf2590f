"""What `vcell inspect` counts of rows that are not in order, against numpy."""

import functools
import operator
from itertools import pairwise

import numpy as np
import pytest

from vcell.kernels.rows import disorder, survey_values


def test_disorder_counts_unsorted_rows_repeats_and_zeros():
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 40, 7, 1000, 5]
    rows = [rng.integers(0, 50 + 10 * n, n).astype(np.int32) for n in lengths]
    rows += [np.sort(rows[4]), np.arange(30, dtype=np.int32)[::-1].copy()]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    data = rng.integers(0, 4, indptr[-1]).astype(np.float32)
    unsorted = sum(bool((np.diff(row) < 0).any()) for row in rows)
    repeated = sum(len(row) - len(np.unique(row)) for row in rows)
    found = disorder(indptr, np.concatenate(rows), data)
    assert found == (unsorted, repeated, int((data == 0).sum()))
    assert unsorted
    assert repeated


def _slowly(indptr, indices, data, mito, n_genes):
    """Survey with numpy, entry by entry in float64."""
    value = data.astype(np.float64)
    finite = np.isfinite(value)
    held = np.where(finite, value, 0)
    cells = np.zeros((len(indptr) - 1, 3))
    for cell, (a, b) in enumerate(pairwise(indptr)):
        marked = mito[indices[a:b]]
        # one after the other: numpy's sum adds in pairs
        total = functools.reduce(operator.add, held[a:b].tolist(), 0.0)
        share = functools.reduce(operator.add, held[a:b][marked].tolist(), 0.0)
        cells[cell] = total, b - a, 100 * share / total if total > 0 else 0
    sums = np.zeros(n_genes)
    np.add.at(sums, indices, held)
    odd = [np.isnan(value), np.isinf(value), value < 0, finite & (held != np.floor(held))]
    return cells, sums, np.bincount(indices, minlength=n_genes), [int(o.sum()) for o in odd]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("counts", np.float32),
        ("counts", np.int64),
        ("tied", np.float64),
        ("fractions", np.float32),
        ("some fractions", np.float64),
        ("huge", np.float32),
        ("huge", np.int64),
        ("strange", np.float32),
        ("none", np.float32),
        ("all", np.float32),
    ],
)
def test_a_survey_equals_numpy_entry_by_entry(kind, dtype):
    rng = np.random.default_rng(3)
    n_cells, n_genes = 60, 240
    mito = rng.random(n_genes) < {"none": 0, "all": 1}.get(kind, 0.1)
    lengths = rng.integers(0, n_genes, n_cells)
    lengths[[0, 7, n_cells - 1]] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate(
        [np.sort(rng.choice(n_genes, n, replace=False)) for n in lengths]
    ).astype(np.int32)
    value = np.full(len(indices), 2.0) if kind == "tied" else 1.0 + rng.poisson(3, len(indices))
    if kind == "fractions":
        value = rng.gamma(1, 1, len(indices))
    if kind == "some fractions":  # in some rows only: others are counts
        value[indptr[20] : indptr[40]] += 0.3
    if kind == "huge":  # around and beyond the exact sums
        value = value * rng.choice([1, 1 << 19, 1 << 20, 1 << 40], len(indices))
    if kind == "strange":
        odd = rng.integers(0, len(indices), 40)
        value[odd] = rng.choice([np.nan, np.inf, -np.inf, -1, -0.5, 1e30], 40)
    data = value.astype(dtype)
    cells, sums = np.empty((n_cells, 3)), np.zeros(n_genes)
    seen, odd = np.zeros(n_genes, np.int64), np.zeros(4, np.int64)
    survey_values(indptr, indices, data, mito, cells, sums, seen, odd)
    expected = _slowly(indptr, indices, data, mito, n_genes)
    for found, slow in zip((cells, sums, seen, odd.tolist()), expected, strict=True):
        np.testing.assert_array_equal(found, slow)
