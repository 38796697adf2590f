"""Principal components of sparse cells: against dense ones, scaled genes, and storage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from vcell.gmvae.cells import ResidentCells
from vcell.gmvae.components import Components
from vcell.gmvae.head import fit

CELLS, LOUD, QUIET = 400, 40, 20


def _counts():
    """Draw two types that differ in quiet genes; loud genes vary without regard to the type."""
    rng = np.random.default_rng(0)
    kind = np.arange(CELLS) % 2
    loud = rng.poisson(rng.gamma(0.5, 60, (CELLS, LOUD)))
    rate = np.where(kind[:, None] == np.arange(QUIET) % 2, 2.0, 0.7)
    return np.hstack([loud, rng.poisson(rate)]).astype(np.uint16), kind


def _resident(counts, target=1000.0):
    matrix = sp.csr_matrix(counts)
    borders = matrix.indptr.astype(np.int64)
    return ResidentCells(matrix.indices, matrix.data, borders, counts.shape[1], target)


def _log(counts, target=1000.0):
    return np.log1p(counts * (target / counts.sum(1, keepdims=True)))


@pytest.mark.parametrize("scaled", [False, True])
def test_components_are_those_of_the_dense_matrix(scaled):
    counts, _ = _counts()
    rows = np.arange(CELLS)
    cells = _resident(counts)
    found = Components.learnt(cells, rows, n=5, scaled=scaled).of(cells, rows)
    x = _log(counts.astype(float))
    x -= x.mean(0)
    if scaled:
        x /= x.std(0) + np.median(x.std(0))
    u, size, _ = np.linalg.svd(x, full_matrices=False)
    expected = (u * size)[:, :5]
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * sign, atol=2e-3)


def test_types_that_differ_in_quiet_genes_are_told_apart_by_scaled_genes():
    counts, kind = _counts()
    cells, train, test = _resident(counts), np.arange(200), np.arange(200, CELLS)
    right = {}
    for scaled in (False, True):
        components = Components.learnt(cells, train, n=10, scaled=scaled)
        head = fit(components.of(cells, train), kind[train], 2)
        given = head.logits(components.of(cells, test)).argmax(1)
        right[scaled] = (given == kind[test]).mean()
    assert right[True] > 0.85
    assert right[False] < 0.7


def test_a_gene_without_counts_changes_nothing():
    counts, _ = _counts()
    empty = np.hstack([counts, np.zeros((CELLS, 3), np.uint16)])
    rows = np.arange(CELLS)
    one, other = (
        Components.learnt(cells, rows, n=5, scaled=True).of(cells, rows)
        for cells in (_resident(counts), _resident(empty))
    )
    np.testing.assert_allclose(np.abs(one), np.abs(other), atol=1e-3)


def test_parts_are_read_back_and_older_files_have_one(tmp_path):
    counts, _ = _counts()
    cells, rows = _resident(counts), np.arange(CELLS)
    plain = Components.learnt(cells, rows, n=4)
    both = plain.beside(Components.learnt(cells, rows, n=6, scaled=True))
    both.save(tmp_path / "both.npz")
    found = Components.load(tmp_path / "both.npz")
    assert [part.shape[1] for part in found.split(found.of(cells, rows))] == [4, 6]
    np.testing.assert_array_equal(found.of(cells, rows), both.of(cells, rows))
    np.savez(tmp_path / "old.npz", centre=plain.centre, axes=plain.axes)
    assert Components.load(tmp_path / "old.npz").parts == (4,)
