"""What is found in rows, and what is written of them, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.kernels import scatter

GENES = 40


def plain(values):
    """Return the flags of one row."""
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    negative = finite & (wide < 0)
    with np.errstate(invalid="ignore", over="ignore"):
        inexact = wide.astype(np.float32).astype(np.float64) != wide
    fraction = finite & ~negative & ((wide != np.floor(wide)) | (wide >= 2.0**32))
    return (
        scatter.NOT_FINITE * (~finite).any() | scatter.NEGATIVE * negative.any()
        | scatter.FRACTION * fraction.any() | scatter.INEXACT * inexact.any()
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
@pytest.mark.parametrize("mito", [0, 3])
@pytest.mark.parametrize("dropped", [0, 7])
def test_rows_are_measured(dtype, mito, dropped):
    rng = np.random.default_rng(0)
    length = rng.integers(0, GENES, 60)
    indptr = np.concatenate([[0], np.cumsum(length)])
    idx = np.concatenate([np.sort(rng.permutation(GENES)[:n]) for n in length]).astype(np.int32)
    val = rng.integers(1, 90, len(idx)).astype(dtype)
    odd = [-2, 3, 2**24 + 1, 2**31 - 1]
    if dtype == np.float64:
        odd += [0.5, -0.1, np.nan, np.inf, -np.inf, 2.0**32, 2.0**32 - 1, 2.0**40, 0.1]
    for row, value in enumerate(odd, 5):
        if length[row]:
            val[indptr[row]] = value
    is_mito = rng.permutation(GENES) < mito
    column = np.where(rng.permutation(GENES) < dropped, -1, 0).astype(np.int32)
    n = len(length)
    total, mitos = np.empty(n), np.empty(n)
    genes, kept, flags = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
    scatter.measure(indptr, idx, val, is_mito, column, total, mitos, genes, kept, flags)
    for row in range(n):
        at = slice(indptr[row], indptr[row + 1])
        wide = val[at].astype(np.float64)
        np.testing.assert_allclose(total[row], wide.sum(), rtol=1e-12)
        np.testing.assert_allclose(mitos[row], wide[is_mito[idx[at]]].sum(), rtol=1e-12)
        assert genes[row] == len(wide)
        assert kept[row] == (column[idx[at]] >= 0).sum()
        assert flags[row] == plain(val[at])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("chosen", ["all", "some", "turned"])
@pytest.mark.parametrize("largest", [1, 127, 128, 2**20])
def test_counts_are_written_and_summed(dtype, chosen, largest):
    rng = np.random.default_rng(largest)
    column = np.arange(GENES, dtype=np.int32)
    if chosen != "all":
        column = np.where(column % 3 == 1, -1, np.cumsum(column % 3 != 1) - 1).astype(np.int32)
    if chosen == "turned":
        column = np.where(column >= 0, column.max() - column, -1).astype(np.int32)
    n_columns = column.max() + 1
    stats, want = np.zeros((n_columns, 4)), np.zeros((n_columns, 4))
    for rows in (0, 1, 50, 40_000):  # blocks; the last one exceeds what is packed at once
        length = rng.integers(0, 4 if rows > 50 else GENES + 1, rows)
        indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        idx = np.concatenate([np.sort(rng.permutation(GENES)[:n]) for n in length] or [[]]).astype(
            np.int32
        )
        val = np.where(rng.random(len(idx)) < 0.5, largest, rng.integers(1, largest + 1, len(idx)))
        keep, val = rng.random(rows) < 0.9, val.astype(dtype)
        row = np.repeat(np.arange(rows), length)
        taken = keep[row] & (column[idx] >= 0)
        at = np.cumsum(np.bincount(row[taken], minlength=rows)) - np.bincount(
            row[taken], minlength=rows
        )
        ids, values = np.zeros(taken.sum(), np.int16), np.zeros(taken.sum(), np.uint16)
        escaped = scatter.scatter_counts(indptr, idx, val, keep, at, column, ids, values, stats)
        c, x = column[idx[taken]], val[taken].astype(float)
        assert (ids == c).all()
        assert (values == np.minimum(x, scatter.ESCAPE)).all()
        assert escaped == (x >= scatter.ESCAPE).sum()
        want[:, scatter.N_CELLS] += np.bincount(c, minlength=n_columns)
        want[:, scatter.SUM] += np.bincount(c, x, n_columns)
        want[:, scatter.SUM_SQUARES] += np.bincount(c, x * x, n_columns)
        np.maximum.at(want[:, scatter.MAX], c, x)
        assert (stats == want).all()
