"""The same bits for any size of block, any number of threads, and under dask."""

from __future__ import annotations

import gc

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from tests.kernels.conftest import draw, source_of
from vcell.data import open_cells
from vcell.errors import UserError
from vcell.passes import SPAN, TILE, CellRules, Reader, run
from vcell.passes.reducers import (
    CountHistogram,
    GeneMoments,
    GroupLogMoments,
    NormalizedMoments,
    RareEntries,
)

CELLS, GENES = 2 * SPAN + 3 * TILE + 77, 24


@pytest.fixture(scope="module")
def matrix():
    return draw(CELLS, GENES, 0)


def reducers(n_batches: int = 3):
    """Make one of each kind, among them sums of fractions."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, n_batches, CELLS).astype(np.int32)
    return [
        NormalizedMoments(GENES, target_sum=1e4, linear=True),
        NormalizedMoments(GENES, target_sum=1e4, linear=False, codes=codes, n_batches=n_batches),
        GeneMoments(GENES, codes=codes, n_batches=n_batches),
        GroupLogMoments(GENES, codes, n_batches, target_sum=1e4),
        CountHistogram(GENES, bins=20),
        RareEntries(GENES, 4),
    ]


def gathered(filled):
    """Return the arrays of the reducers of `reducers`."""
    *sums, histogram, rare = filled
    histogram.collect()
    return [*(r.total for r in sums), histogram.small, histogram.high, rare.dropped()]


def assert_same(left, right):
    for a, b in zip(gathered(left), gathered(right), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("max_nnz", "threads"), [(1_000, 1), (7_777, 3), (50_000, 2)])
def test_blocks_and_threads_do_not_show(matrix, max_nnz, threads):
    rules = CellRules(min_genes=3)
    whole, parts = reducers(), reducers()

    table = run(source_of(matrix), whole, rules=rules, threads=1, label=None)
    again = Reader(source_of(matrix), rules, threads, max_nnz, None)(parts)

    assert_same(whole, parts)
    np.testing.assert_array_equal(table.totals, again.totals)
    np.testing.assert_array_equal(table.kept, again.kept)


def test_many_batches_are_shared_out_and_add_up_the_same(matrix, monkeypatch):
    from vcell.passes.reducers import genes as module

    tiled = reducers()
    run(source_of(matrix), tiled, threads=2, label=None)
    monkeypatch.setattr(module, "_TILED_BYTES", 0)
    one, three = reducers(), reducers()
    run(source_of(matrix), one, threads=1, label=None)
    run(source_of(matrix), three, threads=3, max_nnz=9_999, label=None)

    assert_same(one, three)
    for a, b in zip(gathered(tiled), gathered(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_some_rows_are_what_a_matrix_of_those_rows_gives(matrix):
    rows = np.flatnonzero(np.random.default_rng(3).random(CELLS) < 0.3)
    some, alone = GeneMoments(GENES), GeneMoments(GENES)
    run(source_of(matrix), [some], rows=rows, label=None)
    run(source_of(matrix[rows]), [alone], label=None)
    np.testing.assert_array_equal(some.total, alone.total)


def test_dask_gives_the_same_bits(matrix, tmp_path):
    pytest.importorskip("dask", reason="dask is an extra")
    from vcell.passes.dask import DaskReader

    path = tmp_path / "cells.h5ad"
    names = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    anndata.AnnData(matrix, var=names).write_h5ad(path)
    here, there = reducers(), reducers()
    with open_cells(path) as source:
        table = Reader(source, CellRules(min_genes=3), label=None)(here)
        again = DaskReader(source, CellRules(min_genes=3))(there)

    assert_same(here, there)
    np.testing.assert_array_equal(table.kept, again.kept)


def test_dask_opens_the_file_once_for_all_tasks(matrix, tmp_path, monkeypatch):
    """Opening takes longer the more cells a file has: once a task, it would be quadratic."""
    pytest.importorskip("dask", reason="dask is an extra")
    from vcell.passes import dask as dask_engine

    opened = []
    monkeypatch.setattr(dask_engine, "_SPANS", 1)
    monkeypatch.setattr(
        dask_engine, "open_cells", lambda *a, **k: opened.append(open_cells(*a, **k)) or opened[-1]
    )
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(matrix).write_h5ad(path)
    assert CELLS > 2 * SPAN  # at least three tasks
    here, there = reducers(), reducers()
    with open_cells(path) as source:
        Reader(source, CellRules(), label=None)(here)
        dask_engine.DaskReader(source, CellRules())(there)

    assert_same(here, there)
    assert len(opened) == 1
    file = opened[0].obs_frame.group.file
    opened.clear()
    gc.collect()
    assert not file  # closed


def test_dask_needs_a_file(matrix):
    pytest.importorskip("dask", reason="dask is an extra")
    from vcell.passes.dask import DaskReader

    with pytest.raises(UserError, match="needs cells in a file"):
        DaskReader(source_of(matrix), CellRules())


def with_rare_genes(matrix):
    """Most of the first genes gone but for one to three cells each, far apart."""
    dense = matrix.toarray()
    dense[:, :6] = 0
    for gene in range(6):
        dense[[17 + 5 * gene, SPAN + 100 * gene, CELLS - 1 - gene][: gene % 3 + 1], gene] = 2 + gene
    return csr_matrix(dense)


@pytest.mark.parametrize(("max_nnz", "threads"), [(1_000, 1), (7_777, 3), (None, 2)])
def test_rows_of_rare_genes_are_kept_as_they_would_be_read_again(matrix, max_nnz, threads):
    cells = with_rare_genes(matrix)
    rare = RareEntries(GENES, 4)
    read = Reader(source_of(cells), CellRules(min_genes=3), threads, max_nnz, None)
    read([rare])
    touched, _ = rare.losses(CELLS)
    assert len(touched) >= 6
    block = rare.rows_of(touched)
    assert block is not None
    again, held = (NormalizedMoments(GENES, target_sum=1e4, linear=True) for _ in range(2))
    read([again], rows=touched)
    read.held(block)([held], rows=touched)
    np.testing.assert_array_equal(again.total, held.total)
    assert again.total[0, :6, 0].sum() > 0


def test_rows_that_do_not_fit_are_read_again(matrix, monkeypatch):
    cells = with_rare_genes(matrix)
    rare = RareEntries(GENES, 4)
    monkeypatch.setattr(RareEntries, "KEPT", 10)
    Reader(source_of(cells), CellRules(), label=None)([rare])
    assert rare.rows_of(rare.losses(CELLS)[0]) is None
    assert not rare._rows
