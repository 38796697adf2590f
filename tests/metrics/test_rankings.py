"""Mean ranks are scipy's, ties, infinities and NaN included."""

import numpy as np
import pytest
from scipy.stats import rankdata

from vcell.metrics.rankings import mean_ranks


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("n", [1, 2, 17, 400])
def test_mean_ranks_are_scipys(n, levels):
    values = np.random.default_rng(n).integers(0, levels, (4, n)).astype(float)
    values[1, 0], values[2, -1], values[3, n // 2] = np.inf, -np.inf, np.nan
    assert np.array_equal(mean_ranks(values), rankdata(values, axis=1), equal_nan=True)
    assert np.array_equal(mean_ranks(values[0].astype(np.int64)), rankdata(values[0]))
