"""The rank tests of 2026 on counts whose fractions of their cells are equal, and on near ties."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from tests.metrics.cells import measured

N_GENES = 40


def cells_of_equal_fractions(seed: int, n: int = 300) -> np.ndarray:
    """Counts in proportion, 2 of 20,000 beside 3 of 30,000, in cells of a few sizes."""
    rng = np.random.default_rng(seed)
    size = rng.choice([6, 7, 9, 12, 14, 18, 21], n)
    x = rng.integers(0, 4, (n, N_GENES)) * size[:, None]
    x[:, -1] = 3000 * size - x[:, :-1].sum(axis=1)
    return x.astype(np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_equal_fractions_are_ranked_as_scanpy_and_pdex_round_them(seed):
    """log1p of CPM, each rounded once, decides what is a tie; not the fraction."""
    x = cells_of_equal_fractions(seed)
    group = (np.arange(len(x)) % 3).astype(np.int32)
    totals = x.sum(axis=1)
    found = measured(sp.csr_matrix(x.astype(np.float32)), group, 3)

    level = np.log1p(x / (totals / 1e6)[:, None])
    for p in (1, 2):
        expected = stats.mannwhitneyu(
            level[group == p], level[group == 0], axis=0, method="asymptotic"
        )
        np.testing.assert_array_equal(found.u[p - 1], expected.statistic)
        tested = found.tested
        np.testing.assert_allclose(
            found.p[p - 1, tested], np.nan_to_num(expected.pvalue, nan=1.0)[tested], rtol=1e-12
        )


def test_the_cells_above_do_hold_equal_fractions_that_round_apart():
    x = cells_of_equal_fractions(0)
    totals = x.sum(axis=1)
    level, fraction = np.log1p(x / (totals / 1e6)[:, None]), x / totals[:, None]
    levels = sum(len(np.unique(column)) for column in level.T)
    assert levels > sum(len(np.unique(column)) for column in fraction.T)
