"""Highly variable genes: scanpy's choice, from stored references."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.kernels.conftest import draw, source_of
from vcell.data import open_cells
from vcell.errors import UserError
from vcell.hvg import FLAVORS, BatchLabels, highly_variable

SCORE = {
    "seurat": "dispersions_norm",
    "cell_ranger": "dispersions_norm",
    "seurat_v3": "variances_norm",
    "seurat_v3_paper": "variances_norm",
    "pearson_residuals": "residual_variances",
}


@pytest.fixture(scope="module")
def reference():
    """Return what make_reference.py wrote."""
    with np.load(Path(__file__).with_name("reference.npz"), allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def small(reference):
    return anndata.AnnData(
        sparse.csr_matrix(reference["counts"].astype(np.float32)),
        obs=pd.DataFrame({"batch": reference["batches"]}, index=np.arange(400).astype(str)),
        var=pd.DataFrame(index=reference["genes"]),
    )


def check(ranking, reference, name):
    """Compare the choice exactly, and the scores to float32's last digits."""
    chosen, score = reference[f"{name}/chosen"], reference[f"{name}/score"]
    np.testing.assert_array_equal(ranking.selected, chosen)
    own = ranking.scores[SCORE[ranking.flavor]]
    known = np.isfinite(score)
    np.testing.assert_allclose(own[known], score[known], rtol=1e-4, atol=2e-6)
    best = ranking.order[: int(chosen.sum())]
    assert set(best) == set(np.flatnonzero(chosen))


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("batched", [False, True])
def test_the_choice_on_simulated_counts_is_scanpys(reference, small, flavor, batched):
    with open_cells(small) as source:
        batches = BatchLabels.of(source.obs("batch").values) if batched else None
        # scanpy's pearson residuals and unbatched cell_ranger cannot do with empty cells and genes
        min_cells = 1 if flavor == "cell_ranger" and not batched else 0
        ranking = highly_variable(
            source, flavor=flavor, n_top=60, batches=batches, min_cells=min_cells
        )
    if flavor == "pearson_residuals":
        rows = np.asarray(small.X.sum(axis=1)).ravel() > 0
        with open_cells(small[rows].copy()) as source:
            batches = BatchLabels.of(source.obs("batch").values) if batched else None
            ranking = highly_variable(source, flavor=flavor, n_top=60, batches=batches)
    check(ranking, reference, f"small/{flavor}/{'batches' if batched else 'all'}")


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("batched", [False, True])
def test_the_choice_on_real_cells_is_scanpys(reference, shared_data, flavor, batched):
    with open_cells(shared_data / "vcc25" / "H1-VCC-2025-training_600x1000.h5ad") as source:
        batches = BatchLabels.of(source.obs("target_gene").values) if batched else None
        min_cells = 1 if flavor == "cell_ranger" and not batched else 0
        ranking = highly_variable(
            source, flavor=flavor, n_top=200, batches=batches, min_cells=min_cells
        )
    check(ranking, reference, f"h1/{flavor}/{'batches' if batched else 'all'}")


@pytest.fixture(scope="module")
def scanpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("scanpy", reason="scanpy is a peer, not a dependency")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("min_cells", [0, 4, 90])
def test_scanpy_itself_agrees_to_the_last_bit(scanpy, flavor, batched, min_cells):
    cells = anndata.AnnData(
        draw(700, 400, 21, high=4),
        obs=pd.DataFrame({"batch": np.arange(700) % 3}, index=np.arange(700).astype(str)),
        var=pd.DataFrame(index=[f"g{i}" for i in np.random.default_rng(0).permutation(400)]),
    )
    cells.obs["batch"] = cells.obs["batch"].astype(str).astype("category")
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()
    if flavor == "cell_ranger":
        min_cells = max(min_cells, 1)
    theirs = cells.copy()
    if min_cells:
        scanpy.pp.filter_genes(theirs, min_cells=min_cells)
    key = "batch" if batched else None
    if flavor == "pearson_residuals":
        scanpy.experimental.pp.highly_variable_genes(theirs, n_top_genes=80, batch_key=key)
    else:
        if flavor in ("seurat", "cell_ranger"):
            scanpy.pp.normalize_total(theirs, target_sum=1e4)
            scanpy.pp.log1p(theirs)
        scanpy.pp.highly_variable_genes(theirs, flavor=flavor, n_top_genes=80, batch_key=key)

    with open_cells(cells) as source:
        batches = BatchLabels.of(source.obs("batch").values) if batched else None
        ours = highly_variable(
            source, flavor=flavor, n_top=80, batches=batches, min_cells=min_cells
        )

    var = theirs.var.reindex(cells.var_names)
    np.testing.assert_array_equal(
        ours.selected, var["highly_variable"].fillna(value=False).to_numpy(bool)
    )
    for name in ("means", "variances", "dispersions", SCORE[flavor]):
        if name in var and name in ours.scores:
            wanted = var[name].to_numpy(np.float64)
            known = np.isfinite(wanted)
            # pearson: scanpy multiplies sums in float32; clipped sums of v3 add in another order
            rounding = 1e-7 if name == "residual_variances" else 1e-13
            if name == "dispersions_norm":
                rounding = 1e-7  # scanpy stores it in float32
            if name == "variances_norm":
                rounding = 1e-8
            np.testing.assert_allclose(
                ours.scores[name][known], wanted[known], rtol=rounding, atol=1e-9
            )


@pytest.mark.parametrize("flavor", FLAVORS)
def test_results_do_not_depend_on_blocks_threads_or_format(flavor):
    counts = draw(900, 200, 5)
    whole = highly_variable(source_of(counts), flavor=flavor, n_top=50, min_cells=2, threads=1)
    parts = highly_variable(
        source_of(counts), flavor=flavor, n_top=50, min_cells=2, threads=3, max_nnz=2_000
    )
    whole_numbers = counts.astype(np.int64)
    stored = highly_variable(source_of(whole_numbers), flavor=flavor, n_top=50, min_cells=2)
    np.testing.assert_array_equal(whole.order, parts.order)
    for name, values in whole.scores.items():
        np.testing.assert_array_equal(values, parts.scores[name])
    np.testing.assert_array_equal(whole.selected, stored.selected)


def brute_force(dense: np.ndarray, clip: float, theta: float = 100.0) -> np.ndarray:
    """Return variances of Pearson residuals by brute force."""
    mu = dense.sum(axis=0) * dense.sum(axis=1, keepdims=True) / dense.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = (dense - mu) / np.sqrt(mu + mu**2 / theta)
    return np.nan_to_num(np.clip(residual, -clip, clip)).var(axis=0)


@pytest.mark.parametrize("cells", [30, 60, 400, 3000])
def test_residual_variances_are_those_of_the_dense_matrix(cells):
    counts = draw(cells, 60, cells, high=4)
    with open_cells(anndata.AnnData(counts)) as source:
        ranking = highly_variable(source, flavor="pearson_residuals", n_top=10)
    wanted = brute_force(counts.toarray().astype(np.float64), float(np.sqrt(cells)))
    np.testing.assert_allclose(ranking.scores["residual_variances"], wanted, rtol=1e-9, atol=1e-12)


def test_depths_over_five_orders_of_magnitude_are_still_exact():
    rng = np.random.default_rng(0)
    depth = np.exp(rng.uniform(0, np.log(1e5), 800))
    dense = rng.poisson(depth[:, None] * rng.dirichlet(np.ones(40))).astype(np.float32)
    with open_cells(anndata.AnnData(sparse.csr_matrix(dense))) as source:
        ranking = highly_variable(source, flavor="pearson_residuals", n_top=10)
    wanted = brute_force(dense.astype(np.float64), np.sqrt(800))
    np.testing.assert_allclose(ranking.scores["residual_variances"], wanted, rtol=1e-9)


def test_the_median_of_the_cells_can_be_the_target(scanpy):
    counts = draw(500, 150, 9)
    theirs = anndata.AnnData(counts.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.pp.normalize_total(theirs)
        scanpy.pp.log1p(theirs)
        scanpy.pp.highly_variable_genes(theirs, n_top_genes=40)
    ours = highly_variable(source_of(counts), n_top=40, target_sum=0)
    np.testing.assert_array_equal(ours.selected, theirs.var["highly_variable"].to_numpy())


def test_counts_beyond_the_histogram_are_read_again_with_the_same_result(monkeypatch):
    from vcell.hvg import standardized

    counts = draw(900, 200, 5)
    one = highly_variable(source_of(counts), flavor="seurat_v3", n_top=50)
    monkeypatch.setattr(standardized, "_HISTOGRAM_BYTES", 0)
    two = highly_variable(source_of(counts), flavor="seurat_v3", n_top=50)
    for name, values in one.scores.items():
        np.testing.assert_array_equal(values, two.scores[name])


@pytest.mark.parametrize("flavor", ["seurat_v3", "pearson_residuals"])
def test_flavours_of_counts_refuse_log_values(flavor):
    with pytest.raises(UserError, match="needs raw counts"):
        highly_variable(source_of(draw(50, 20, 0)), flavor=flavor, target_sum=None)


def test_genes_that_share_their_mean_are_too_much_for_cell_ranger():
    counts = draw(200, 100, 1)
    counts = sparse.hstack([counts, sparse.csr_matrix((200, 300))]).tocsr().astype(np.float32)
    with pytest.raises(UserError, match="too many of them have the same") as caught:
        highly_variable(source_of(counts), flavor="cell_ranger", n_top=10)
    assert "--min-cells" in str(caught.value.hint)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_nothing_to_rank_is_one_clear_sentence(flavor):
    for cells in (0, 1, 5):
        with pytest.raises(UserError):
            highly_variable(
                source_of(sparse.csr_matrix((cells, 8), dtype=np.float32)), flavor=flavor, n_top=3
            )
