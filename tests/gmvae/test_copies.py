"""Copies of cells: found by their counts, whatever their names and order."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from vcell.gmvae.cells import ResidentCells
from vcell.gmvae.copies import originals


def resident(table):
    rows = sparse.csr_matrix(table)
    return ResidentCells(rows.indices, rows.data, rows.indptr.astype(np.int64), rows.shape[1], 1.0)


def test_equal_cells_belong_to_the_first_that_has_a_label():
    rng = np.random.default_rng(0)
    table = rng.poisson(1.0, (9000, 40)).astype(np.uint8)
    table[7000], table[50], table[8999] = table[3], table[3], table[4]
    label = np.zeros(9000, np.int64)
    label[3] = -1
    expected = np.arange(9000)
    expected[[3, 7000]], expected[8999] = 50, 4
    assert (originals(resident(table), label) == expected).all()


def test_the_same_counts_in_other_genes_and_few_counts_are_no_copies():
    table = np.zeros((5, 30), np.uint8)
    table[0, :12], table[1, 12:24] = range(1, 13), range(1, 13)
    table[2, :12] = range(12, 0, -1)
    table[3:, :5] = 1  # alike by chance
    assert (originals(resident(table), np.zeros(5, np.int64)) == np.arange(5)).all()
