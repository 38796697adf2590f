"""Labels are numbered, and genes binned, as pandas does it, which is not imported for that."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcell.data.column import numbered
from vcell.data.texts import factorise
from vcell.hvg.dispersion import _bins, _mean_and_spread, _mean_of_batches

_LABELS = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.none(), st.just(float("nan")))


@given(st.lists(_LABELS, max_size=30), st.booleans())
def test_labels_are_numbered_as_by_pandas(labels, ordered):
    values = np.empty(len(labels), object)
    values[:] = labels
    codes, different = factorise(values, ordered=ordered)
    expected, unique = pd.factorize(values, sort=ordered)
    assert codes.tolist() == expected.tolist()
    assert different.tolist() == list(unique)


@pytest.mark.parametrize("values", [[2.5, np.nan, -1.0, 2.5], [3, 1, 3], ["b", None, "a", "b"]])
def test_columns_of_numbers_and_text_are_numbered_as_by_pandas(values):
    column = np.array(values)
    codes, different = numbered(column)
    expected, unique = pd.factorize(column, sort=True)
    assert codes.tolist() == expected.tolist()
    assert different.tolist() == list(unique)


@pytest.mark.parametrize("n", [0, 1, 2, 400])
def test_centre_and_spread_of_a_bin_are_those_of_pandas_to_the_bit(n):
    values = np.exp(np.random.default_rng(n).normal(0, 12, n))  # of very different sizes
    grouped = pd.Series(values).groupby(np.zeros(n))
    found = _mean_and_spread(values)
    expected = (float("nan"), float("nan"))
    if n:
        expected = (float(grouped.mean().iloc[0]), float(grouped.std().iloc[0]))
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)


def test_means_over_batches_are_those_of_pandas():
    values = np.exp(np.random.default_rng(0).normal(0, 12, (7, 50)))
    values[np.random.default_rng(1).random(values.shape) < 0.3] = np.nan
    values[:, 0] = np.nan
    expected = pd.DataFrame(values).mean()
    np.testing.assert_allclose(_mean_of_batches(values), expected, rtol=1e-15)


@pytest.mark.parametrize("mean", [np.full(4, 2.0), np.zeros(3), np.linspace(0, 1, 21) ** 2])
def test_means_are_cut_as_by_pandas(mean):
    assert _bins(mean, "seurat").tolist() == pd.cut(mean, bins=20, labels=False).tolist()


def test_means_are_cut_at_every_twentieth():
    mean = np.random.default_rng(0).gamma(0.3, size=500)
    edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
    expected = pd.cut(mean, bins=edges, labels=False)
    assert _bins(mean, "cell_ranger").tolist() == expected.tolist()
