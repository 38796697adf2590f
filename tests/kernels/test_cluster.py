"""A pass by the workers of a dask cluster: processes of their own."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from tests.kernels.conftest import draw
from vcell.data import open_cells
from vcell.errors import UserError
from vcell.passes import SPAN, CellRules, Reader, Reducer
from vcell.passes.reducers import GroupLogMoments, NormalizedMoments

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    matrix = draw(5 * SPAN + 100, 20, 0)
    path = tmp_path_factory.mktemp("cluster") / "cells.h5ad"
    names = pd.DataFrame(index=[f"gene{i}" for i in range(20)])
    anndata.AnnData(matrix, var=names).write_h5ad(path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_processes_give_the_same_bits(cells):
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    from vcell.passes.dask import DaskReader

    codes = (np.arange(5 * SPAN + 100) % 3).astype(np.int32)

    def reducers():
        return [
            NormalizedMoments(20, target_sum=1e4, linear=True),
            GroupLogMoments(20, codes, 3, target_sum=1e4),
        ]

    here, there = reducers(), reducers()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        open_cells(cells) as source,
    ):
        table = Reader(source, CellRules(min_genes=2), label=None)(here)
        again = DaskReader(source, CellRules(min_genes=2), cluster.scheduler_address)(there)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.total, b.total)
    np.testing.assert_array_equal(table.kept, again.kept)


@pytest.mark.filterwarnings("ignore")
def test_labels_of_all_cells_do_not_travel_with_every_task(cells, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    from vcell.passes import dask as dask_engine

    monkeypatch.setattr(dask_engine, "_SPANS", 1)
    sent = []
    reduced = Reducer.__reduce__
    monkeypatch.setattr(Reducer, "__reduce__", lambda self: sent.append(self) or reduced(self))
    codes = np.zeros(5 * SPAN + 100, np.int32)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        open_cells(cells) as source,
    ):
        read = dask_engine.DaskReader(source, CellRules(), cluster.scheduler_address)
        read([GroupLogMoments(20, codes, 1, target_sum=1e4)])
    assert 1 <= len(sent) < 6  # tasks


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_not_there_is_one_sentence(cells, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is an extra")
    from vcell.passes import dask as dask_engine

    monkeypatch.setattr(dask_engine, "_PATIENCE", "1s")
    with open_cells(cells) as source, pytest.raises(UserError, match="no dask scheduler answers"):
        dask_engine.DaskReader(source, CellRules(), "tcp://127.0.0.1:9")([])
