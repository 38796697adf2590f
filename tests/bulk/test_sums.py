"""Sums of drawn cells equal those of an indicator matrix, in memory and in many passes."""

from __future__ import annotations

import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcell.bulk.draw import Sampling
from vcell.bulk.packed import GeneOrder
from vcell.bulk.pools import Pools
from vcell.bulk.sums import all_samples, samples
from vcell.data import open_cells
from vcell.data.write import CellWriter
from vcell.errors import UserError

CELLS, GENES = 700, 90


def cells(seed: int = 0, largest: int = 50) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, largest, (CELLS, GENES)) * (rng.random((CELLS, GENES)) < 0.1)
    counts[5] = 0
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(rng.choice(["a", "b", "c", "unknown"], CELLS)),
            "patient": rng.choice(["p1", "p2"], CELLS),
        },
        index=[f"cell{i}" for i in range(CELLS)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def reference(data: anndata.AnnData, drawn: np.ndarray) -> np.ndarray:
    """The same by scipy, in float64."""
    n, size = drawn.shape
    rows = np.repeat(np.arange(n), size)
    times = sparse.csr_matrix((np.ones(n * size), (rows, drawn.ravel())), (n, data.n_obs))
    return (times @ sparse.csr_matrix(data.X, dtype=np.float64)).toarray()


@pytest.mark.parametrize("memory", [1 << 28, 1 << 14])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_sums_are_exact_in_memory_and_in_many_passes(memory, kind, capsys):
    data = cells()
    if kind == "csc":
        data.X = data.X.tocsc()
    elif kind == "dense":
        data.X = data.X.toarray()
    with open_cells(data) as source:
        pools = Pools.read(source, "kind", by="patient")
        how = Sampling(samples=60, cells=30, seed=1)
        got = all_samples(source, pools, how, memory=memory, threads=3)
        parts = list(samples(source, pools, how, memory=memory))
    assert got.counts.dtype == np.int32
    assert (got.counts == reference(cells(), got.drawn.cells)).all()
    assert (np.concatenate([p.counts for p in parts]) == got.counts).all()
    assert ("so they are read for each" in capsys.readouterr().err) == (memory == 1 << 14)
    assert pools.types == ("a", "b", "c")
    assert "unknown" not in set(data.obs["kind"].astype(str).to_numpy()[got.drawn.cells].ravel())


@pytest.mark.parametrize("memory", [1 << 28, 1 << 12])
def test_chosen_genes_are_the_columns_of_the_whole(memory):
    genes = np.array([80, 3, 41])
    with open_cells(cells()) as source:
        pools = Pools.read(source, "kind")
        how = Sampling(samples=40, cells=30)
        whole = all_samples(source, pools, how)
        some = all_samples(source, pools, how, genes=genes, memory=memory)
    assert (some.counts == whole.counts[:, genes]).all()
    assert (some.drawn.cells == whole.drawn.cells).all()


def test_huge_counts_are_added_exactly_and_refused_beyond_31_bits():
    data = cells()
    data.X = data.X.astype(np.float64).tocsr()
    data.X.data[:] = 3_000_001
    with open_cells(data) as source:
        pools = Pools.read(source, "kind")
        got = all_samples(source, pools, Sampling(samples=10, cells=1000))
        assert (got.counts == reference(data, got.drawn.cells)).all()
        assert got.counts.max() > 2**24
        with pytest.raises(UserError, match=r"more than 2\*\*31"):
            all_samples(source, pools, Sampling(samples=2, cells=20_000))


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf, 3e9])
def test_what_is_no_count_is_named_with_its_cell(value):
    data = cells()
    data.X = data.X.astype(np.float64)
    at = data.X.indptr[400]
    data.X.data[at] = value
    with open_cells(data) as source:
        pools = Pools.of(np.zeros(CELLS, int), ["all"])
        with pytest.raises(UserError, match="cell 400 holds"):
            all_samples(source, pools, Sampling(samples=2, cells=5))


def test_no_label_at_all_is_refused():
    data = cells()
    data.obs["kind"] = "unknown"
    with open_cells(data) as source, pytest.raises(UserError, match="no cell has a label"):
        Pools.read(source, "kind")


@pytest.mark.parametrize(
    ("n_cells", "drawn", "memory"),
    [
        (3000, 5, 1 << 28),  # a cell is in few samples, most genes are in the table
        (3000, 400, 1 << 28),  # in many
        (3000, 400, 1 << 20),  # the same, in many pieces
        (5000, 600, 1 << 28),  # in two ranges
        (3, 1000, 1 << 28),  # in one sample more often than a byte holds, and all genes are listed
    ],
)
def test_genes_of_every_kind_are_added_exactly(n_cells, drawn, memory):
    """Genes in the table, with as many bits as they need, and listed ones."""
    rng = np.random.default_rng(5)
    rate = rng.choice([0.001, 0.01, 0.1, 0.5, 1, 4, 12, 200], 1500)
    data = anndata.AnnData(sparse.csr_matrix(rng.poisson(rate, (n_cells, 1500)).astype(np.float32)))
    rows = np.arange(n_cells)
    with open_cells(data) as source:
        order = GeneOrder.learn(source, rows, None, drawn)
        pools = Pools.of(rng.integers(0, 2, n_cells), ["a", "b"])
        got = all_samples(source, pools, Sampling(samples=40, cells=drawn), memory=memory)
    if drawn < n_cells:
        assert len(order.planes) > 2
        assert order.starts[-1] < len(rate)
    assert (np.sort(order.order) == np.flatnonzero(order.level)).all()
    assert (got.counts == reference(data, got.drawn.cells)).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_many_cells_genes_and_draws_are_added_exactly(threads):
    """Several pieces, several blocks of genes, more draws than 16 bits hold, large counts."""
    rng = np.random.default_rng(3)
    counts = sparse.random(5000, 700, density=0.1, format="csr", random_state=3)
    counts.data = np.where(rng.random(counts.nnz) < 0.1, rng.integers(20, 90_000, counts.nnz), 31)
    data = anndata.AnnData(counts.astype(np.float32))
    with open_cells(data) as source:
        pools = Pools.of(rng.integers(-1, 2, 5000), ["a", "b"])
        got = all_samples(source, pools, Sampling(samples=5, cells=9000), threads=threads)
    assert (got.counts == reference(data, got.drawn.cells)).all()


def test_dense_files_take_full_tables_and_notes_need_no_anndata(tmp_path):
    uns = {"a": {"text": "x", "list": ["p", "q"], "n": 3, "share": 0.5, "yes": True,
                 "numbers": np.arange(4)}}  # fmt: skip
    table = np.arange(12, dtype=np.int32).reshape(3, 4)
    code = (
        "import sys, numpy as np; from vcell.data.write import CellWriter\n"
        f"uns = {uns['a'] | {'numbers': None}!r}; uns['numbers'] = np.arange(4)\n"
        "table = np.arange(12, dtype=np.int32).reshape(3, 4)\n"
        f"with CellWriter({str(tmp_path / 'x.h5ad')!r}, list('abcd'), uns={{'a': uns}},"
        " dense=True, dtype=np.int32) as out: out.append(table[:1]); out.append(table[1:])\n"
        "assert 'anndata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert (table == found.X).all()
    told = found.uns["a"]
    assert (told["numbers"] == np.arange(4)).all()
    assert list(told["list"]) == ["p", "q"]
    assert (told["text"], told["n"], told["share"], told["yes"]) == ("x", 3, 0.5, True)
    whole = {"frame": pd.DataFrame({"a": [1, 2]})}  # what only anndata can write
    with CellWriter(tmp_path / "y.h5ad", ["g"], uns=whole) as out:
        out.append(np.ones((1, 1)))
    assert anndata.read_h5ad(tmp_path / "y.h5ad").uns["frame"]["a"].tolist() == [1, 2]


@pytest.mark.parametrize("memory", [1 << 28, 1 << 21])
def test_more_samples_than_a_row_of_bits_are_added_exactly(memory):
    """Several groups of 256 samples, in one piece and in many."""
    with open_cells(cells(seed=2, largest=4)) as source:
        pools = Pools.read(source, "kind")
        got = all_samples(source, pools, Sampling(samples=600, cells=60), memory=memory, threads=2)
        assert (got.counts == reference(cells(seed=2, largest=4), got.drawn.cells)).all()


def test_cells_without_genes_or_counts_add_up_to_nothing():
    data = anndata.AnnData(sparse.csr_matrix((50, 30), dtype=np.float32))
    with open_cells(data) as source:
        got = all_samples(source, Pools.of(np.zeros(50, int), ["all"]), Sampling(samples=3))
        assert got.counts.shape == (3, 30)
        assert not got.counts.any()
