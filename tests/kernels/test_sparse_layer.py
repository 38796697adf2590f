"""The layer on CSR rows equals the dense product, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from vcell.kernels import sparse_layer


@pytest.mark.parametrize("width", [1, 7, 128, 512])
@pytest.mark.parametrize("density", [0.0, 0.002, 0.06, 1.0])
def test_products_equal_scipys(width, density):
    rng = np.random.default_rng(0)
    x = sparse.random(65, 700, density, "csr", np.float32, rng=rng)
    x.sort_indices()
    weight = rng.normal(size=(700, width)).astype(np.float32)
    slope = rng.normal(size=(65, width)).astype(np.float32)
    out, grad = np.zeros((65, width), np.float32), np.full((700, width), np.nan, np.float32)
    sparse_layer.forward(x.indptr, x.indices, x.data, weight, out)
    columns = sparse_layer.by_gene(x.indptr, x.indices, x.data, 700)
    for first in range(0, 700, 300):  # in pieces, as threads take them
        sparse_layer.backward(*columns, slope, first, min(first + 300, 700), grad)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(out, exact @ weight.astype(float), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad, exact.T @ slope.astype(float), rtol=1e-4, atol=1e-4)


def test_some_rows_of_a_larger_matrix():
    x = sparse.random(40, 300, 0.1, "csr", np.float32, rng=np.random.default_rng(1))
    x.sort_indices()
    weight, out = np.ones((300, 3), np.float32), np.zeros((10, 3), np.float32)
    sparse_layer.forward(x.indptr[20:31], x.indices, x.data, weight, out)
    np.testing.assert_allclose(out[:, 0], np.asarray(x[20:30].sum(1)).ravel(), rtol=1e-5)
    border, rows, values = sparse_layer.by_gene(x.indptr[20:31], x.indices, x.data, 300)
    again = sparse.csc_matrix((values, rows, border), shape=(10, 300))
    assert abs(again - x[20:30]).max() == 0
