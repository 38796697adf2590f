"""What a store holds: the cells of its files, filtered, in another order, exactly."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse import random as random_sparse

from tests.store.conftest import Screen, equal, make_screen
from vcell.errors import UserError
from vcell.store import Loader, Recipe, Shuffled, Store, ensure_store, prepare
from vcell.store.build import first_pass, pipeline


def source_of(store: Store) -> np.ndarray:
    return store.obs["source_row"].to_numpy()


def test_every_cell_comes_back_exactly(screen: Screen, store: Store) -> None:
    rows = source_of(store)
    assert sorted(rows) == list(range(len(screen.obs)))
    assert equal(store.read(), screen.x[rows])
    assert store.obs.index.tolist() == screen.obs.index[rows].tolist()
    assert store.genes.tolist() == screen.genes


def test_the_order_is_shuffled_and_depends_on_the_seed(
    prepared: Callable[..., Store], screen: Screen
) -> None:
    first, again, other = (source_of(prepared(seed=s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.15


def test_anndata_opens_a_store_without_complaint(screen: Screen, store_path: Path) -> None:
    adata = ad.io.read_zarr(store_path)
    rows = adata.obs["source_row"].to_numpy()
    assert equal(csr_matrix(adata.X), screen.x[rows])
    pd.testing.assert_series_equal(adata.obs["depth"], screen.obs["depth"].iloc[rows])
    assert adata.obs["perturbation"].tolist() == screen.obs["perturbation"].iloc[rows].tolist()


@pytest.mark.parametrize("largest", [9, 3_000])
@pytest.mark.parametrize("old", [False, True])
def test_chunks_of_counts_are_frames_that_anyone_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, largest: int, old: bool
) -> None:
    rng = np.random.default_rng(0)
    x = random_sparse(2_000, 500, 0.3, "csr", random_state=0, dtype="f4")  # five chunks
    x.data = np.minimum(np.ceil(rng.exponential(2, x.nnz) ** 3), largest).astype("f4")
    ad.AnnData(x).write_h5ad(tmp_path / "c.h5ad")
    with monkeypatch.context() as patch:
        if old:  # written by numcodecs, as before frames of our own
            patch.setattr("vcell.store.shards.is_framed", lambda *_: False)
        prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    with Store.open(tmp_path / "c.zarr") as store:
        rows = source_of(store)
        assert equal(store.read(), x[rows])
        loader = Loader(store, Shuffled(batch_size=100, block=64, buffer=512), resident=False)
        for batch in loader:
            part = csr_matrix((batch.data, batch.indices, batch.indptr), (len(batch), 500))
            assert equal(part, x[rows[batch.rows]])
    assert equal(csr_matrix(ad.io.read_zarr(tmp_path / "c.zarr").X), x[rows])


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, "uint8"), (256, "uint16"), (65_535, "uint16"), (65_536, "uint32")]
)
def test_counts_take_the_smallest_type_that_holds_them(
    tmp_path: Path, largest: int, dtype: str
) -> None:
    x = csr_matrix(np.array([[1, 0, largest], [0, 2, 3]], "f4"))
    ad.AnnData(x).write_h5ad(tmp_path / "c.h5ad")
    prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    store = Store.open(tmp_path / "c.zarr")
    assert store.val_dtype == dtype
    assert equal(store.read(), x[source_of(store)])


@pytest.mark.parametrize(("dtype", "kept"), [("f4", "float32"), ("f8", "float64")])
def test_values_that_are_not_counts_are_kept_without_rounding(
    tmp_path: Path, dtype: str, kept: str
) -> None:
    rng = np.random.default_rng(0)
    x = csr_matrix(np.log1p(rng.poisson(1, (50, 8)) * 1.7).astype(dtype))
    ad.AnnData(x).write_h5ad(tmp_path / "c.h5ad")
    prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    store = Store.open(tmp_path / "c.zarr")
    assert store.val_dtype == kept
    assert not store.manifest["counts"]
    assert equal(store.read(), x[source_of(store)])


@pytest.mark.parametrize("convert", [csc_matrix, csr_matrix.toarray], ids=["csc", "dense"])
def test_the_layout_of_the_input_makes_no_difference(
    screen: Screen, store: Store, tmp_path: Path, convert: Callable[[csr_matrix], object]
) -> None:
    other = ad.AnnData(convert(screen.x), var=pd.DataFrame(index=screen.genes))
    other.write_h5ad(tmp_path / "o.h5ad")
    prepare([tmp_path / "o.h5ad"], tmp_path / "o.zarr")
    made = Store.open(tmp_path / "o.zarr")
    assert equal(made.read(), store.read())


def test_buckets_and_shards_do_not_show(
    screen: Screen, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BUCKET", 1000)
    monkeypatch.setattr("vcell.store.build.second_pass.CHUNKS_PER_SHARD", 1)
    prepare([screen.path], tmp_path / "s.zarr")
    assert equal(Store.open(tmp_path / "s.zarr").read(), store.read())


@pytest.mark.parametrize(
    "settings",
    [{}, {"min_genes": 25, "min_cells": 200}, {"genes": ("G50", "MT-1", "G7")}, {"codec": "none"}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["counts", "floats"])
def test_cells_in_memory_and_in_files_make_the_same_store(
    screen: Screen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    kind: str,
) -> None:
    path = screen.path
    if kind == "floats":
        path = tmp_path / "log.h5ad"
        cells = ad.read_h5ad(screen.path)
        cells.X = cells.X.astype("f4").log1p()
        cells.write_h5ad(path)
    monkeypatch.setattr(pipeline, "BUCKET", 5000)
    monkeypatch.setattr(first_pass, "MAX_NNZ", 4000)
    monkeypatch.setattr(first_pass, "HELD_NNZ", 3000)
    made = []
    for memory in (0, 1 << 24):
        monkeypatch.setattr(first_pass, "MEMORY", memory)
        prepare([path], tmp_path / "s.zarr", Recipe(**settings))
        files = sorted(p for p in (tmp_path / "s.zarr").rglob("*") if p.is_file())
        made.append({p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in files})
        shutil.rmtree(tmp_path / "s.zarr")
    assert made[0] == made[1]


class TestFilters:
    """Each filter against the definition, in numpy."""

    def test_cells_with_few_genes_or_counts_go(
        self, prepared: Callable[..., Store], screen: Screen
    ) -> None:
        genes = np.diff(screen.x.indptr)
        counts = np.asarray(screen.x.sum(axis=1)).ravel()
        kept = np.flatnonzero((genes >= 28) & (counts >= 100))
        store = prepared(min_genes=28, min_counts=100)
        assert 0 < len(kept) < len(genes)
        assert sorted(source_of(store)) == kept.tolist()
        assert equal(store.read(), screen.x[source_of(store)])
        assert store.manifest["removed"]["min_genes"] == (genes < 28).sum()

    def test_cells_rich_in_mitochondrial_counts_go(
        self, prepared: Callable[..., Store], screen: Screen
    ) -> None:
        counts = screen.x.toarray().astype(float)
        share = counts[:, :5].sum(1) / np.maximum(counts.sum(1), 1)
        store = prepared(max_mito=0.05)
        assert sorted(source_of(store)) == np.flatnonzero(share <= 0.05).tolist()
        assert np.allclose(store.obs["mito_share"], share[source_of(store)])

    def test_doublets_go(self, prepared: Callable[..., Store], screen: Screen) -> None:
        store = prepared(doublet_column="doublet")
        assert sorted(source_of(store)) == np.flatnonzero(~screen.obs["doublet"]).tolist()

    def test_a_doublet_score_is_refused(self, prepared: Callable[..., Store]) -> None:
        with pytest.raises(UserError, match="does not say yes or no"):
            prepared(doublet_column="depth")

    def test_genes_seen_in_few_of_the_kept_cells_go(
        self, prepared: Callable[..., Store], screen: Screen
    ) -> None:
        store = prepared(min_genes=25, min_cells=200)
        x = screen.x[source_of(store)]
        seen = np.asarray((x > 0).sum(axis=0)).ravel() >= 200
        assert 0 < seen.sum() < len(seen)
        assert store.genes.tolist() == np.array(screen.genes)[seen].tolist()
        assert equal(store.read(), x[:, seen])

    def test_a_gene_subset_keeps_its_order_and_totals_keep_all_genes(
        self, prepared: Callable[..., Store], screen: Screen
    ) -> None:
        chosen = ("G50", "MT-1", "G7", "G99")
        store = prepared(genes=chosen)
        assert store.genes.tolist() == list(chosen)
        columns = [screen.genes.index(gene) for gene in chosen]
        assert equal(store.read(), screen.x[source_of(store)][:, columns])
        totals = np.asarray(screen.x.sum(axis=1)).ravel()
        assert (store.obs["total_counts"].to_numpy() == totals[source_of(store)]).all()

    def test_absent_genes_are_named(
        self, prepared: Callable[..., Store], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert prepared(genes=("G50", "NOPE")).genes.tolist() == ["G50"]
        assert "NOPE" in capsys.readouterr().err
        with pytest.raises(UserError, match="of 1 chosen gene none is in the file"):
            prepared(genes=("NOPE",))

    def test_nothing_left_is_an_error(self, prepared: Callable[..., Store]) -> None:
        with pytest.raises(UserError, match="no cell is left of 900"):
            prepared(min_genes=1000)
        with pytest.raises(UserError, match="no gene is left"):
            prepared(min_cells=10_000)


def test_groups_lie_together_and_are_shuffled_within(prepared: Callable[..., Store]) -> None:
    store = prepared(group_by=("perturbation", "batch"))
    pairs = list(zip(store.obs["perturbation"], store.obs["batch"], strict=True))
    changes = sum(a != b for a, b in itertools.pairwise(pairs))
    assert changes == len(set(pairs)) - 1
    first = store.obs["source_row"].to_numpy()[:50]
    assert (np.diff(first) < 0).any()


def test_statistics_are_those_of_the_kept_cells(
    prepared: Callable[..., Store], screen: Screen
) -> None:
    store = prepared(min_genes=25)
    x = screen.x[source_of(store)].toarray().astype(np.float64)
    assert np.allclose(store.statistics["mean"], x.mean(axis=0), rtol=1e-12)
    assert np.allclose(store.statistics["variance"], x.var(axis=0, ddof=1), rtol=1e-9)
    assert (store.statistics["n_cells"] == (x > 0).sum(axis=0)).all()
    told = json.loads((store.path / "preprocessing.json").read_text())
    assert told["target_sum"] == np.median(x.sum(axis=1))


def test_several_files_become_one_store(tmp_path: Path) -> None:
    parts = [make_screen(tmp_path / f"{i}.h5ad", 200, 40, seed=i) for i in range(2)]
    prepare([part.path for part in parts], tmp_path / "both.zarr")
    store = Store.open(tmp_path / "both.zarr")
    both = csr_matrix(np.vstack([part.x.toarray() for part in parts]))
    assert equal(store.read(), both[source_of(store)])


def test_files_of_other_genes_are_joined_as_asked_and_kept_apart(tmp_path: Path) -> None:
    part = make_screen(tmp_path / "all.h5ad", 200, 40)
    cells = ad.read_h5ad(part.path)
    cells[:100, :35].copy().write_h5ad(tmp_path / "a.h5ad")
    cells[100:, 10:].copy().write_h5ad(tmp_path / "b.h5ad")
    files = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    with pytest.raises(UserError, match="does not have the genes of"):
        prepare(files, tmp_path / "s.zarr")
    prepare(files, tmp_path / "s.zarr", Recipe(join="inner"))
    inner = Store.open(tmp_path / "s.zarr")
    assert inner.n_genes == 25
    assert equal(inner.read(), part.x[:, 10:35][source_of(inner)])
    with pytest.raises(UserError, match="other settings"):
        prepare(files, tmp_path / "s.zarr", Recipe(join="outer"))
    prepare(files, tmp_path / "o.zarr", Recipe(join="outer"))
    assert Store.open(tmp_path / "o.zarr").n_genes == 40


def test_columns_of_every_kind_come_back_as_anndata_writes_them(tmp_path: Path) -> None:
    """Names with letters of any length, text, categories, gaps: equal to a plain AnnData's."""
    n = 300
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "text": [f"µ-{i}" for i in range(n)],
            "label": pd.Categorical(
                np.where(np.arange(n) % 7, "b", "ä"), categories=["b", "ä", "c"]
            ),
            "gap": pd.array([None if i % 5 == 0 else i % 2 == 0 for i in range(n)], "boolean"),
            "flag": np.arange(n) % 3 == 0,
            "number": rng.normal(size=n),
            "whole": np.arange(n, dtype=np.int32),
        },
        index=[f"cell-é-{i}" for i in range(n)],
    )
    cells = ad.AnnData(csr_matrix(rng.integers(0, 3, (n, 20)).astype("f4")), obs=obs)
    cells.write_h5ad(tmp_path / "c.h5ad")
    prepare([tmp_path / "c.h5ad"], tmp_path / "s.zarr")
    found = ad.io.read_zarr(tmp_path / "s.zarr").obs.loc[obs.index, list(obs)]
    for name in ("text", "flag", "number", "whole", "gap"):
        assert found[name].tolist() == obs[name].tolist(), name
    assert found["gap"].dtype == "boolean"
    assert found["label"].astype(str).tolist() == obs["label"].astype(str).tolist()
    assert found["label"].cat.categories.tolist() == ["b", "ä", "c"]


def test_a_store_that_is_there_is_used_again(screen: Screen, tmp_path: Path) -> None:
    target = tmp_path / "s.zarr"
    assert not prepare([screen.path], target).reused
    before = (target / "vcell.json").stat().st_mtime_ns
    assert prepare([screen.path], target).reused
    screen.path.touch()  # the same content under a newer date
    assert prepare([screen.path], target).reused
    assert (target / "vcell.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other settings"):
        prepare([screen.path], target, Recipe(seed=5))
    assert not prepare([screen.path], target, Recipe(seed=5), overwrite=True).reused


def test_the_cache_finds_a_store_by_content(screen: Screen, tmp_path: Path) -> None:
    first = ensure_store([screen.path], root=tmp_path)
    again = ensure_store([screen.path], root=tmp_path)
    other = ensure_store([screen.path], Recipe(seed=1), root=tmp_path)
    assert first.path == again.path != other.path


def test_a_file_that_is_no_store_is_not_replaced_silently(screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="was not made by vcell, so it is not replaced"):
        prepare([screen.path], tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"
    with pytest.raises(UserError, match="is not a vcell store"):
        Store.open(tmp_path)


def test_values_that_are_no_numbers_name_cell_and_gene(tmp_path: Path) -> None:
    x = csr_matrix(np.array([[1, 2], [np.nan, 3]], "f4"))
    ad.AnnData(x, var=pd.DataFrame(index=["A", "B"])).write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(UserError, match="cell 1 has NaN or infinity for gene A"):
        prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5ad"]


def test_columns_of_the_input_are_not_lost_to_ours(tmp_path: Path) -> None:
    x = csr_matrix(np.array([[1, 2], [0, 3]], "f4"))
    ad.AnnData(x, obs=pd.DataFrame({"n_genes": [7, 8]}, index=["a", "b"])).write_h5ad(
        tmp_path / "c.h5ad"
    )
    prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    obs = Store.open(tmp_path / "c.zarr").obs.sort_index()
    assert obs["input_n_genes"].tolist() == [7, 8]
    assert obs["n_genes"].tolist() == [2, 1]


def test_negative_values_are_kept_and_not_log_normalised(tmp_path: Path) -> None:
    x = np.array([[-1.5, 0.5], [-2, 3], [0, 0]], "f4")
    ad.AnnData(x).write_h5ad(tmp_path / "c.h5ad")
    prepare([tmp_path / "c.h5ad"], tmp_path / "c.zarr")
    store = Store.open(tmp_path / "c.zarr")
    assert (store.read().toarray() == x[source_of(store)]).all()
    assert store.target_sum is None
    with pytest.raises(UserError, match="are not counts"):
        store.scale()
