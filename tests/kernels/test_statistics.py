"""What a pass gathers equals what numpy makes of the whole matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from tests.kernels.conftest import draw, source_of
from vcell.kernels.groups import ONE
from vcell.passes import CellRules, run
from vcell.passes.reducers import (
    ClippedSums,
    CountHistogram,
    GeneMoments,
    GroupLogMoments,
    GroupSums,
    NormalizedMoments,
    RareEntries,
)


def scale_of(dense: np.ndarray, target: float) -> np.ndarray:
    """Return what scanpy's normalize_total divides by."""
    scale = dense.sum(axis=1, dtype=np.float64).astype(np.float32) / np.float32(target)
    return np.where(scale == 0, np.float32(1), scale)[:, None]


def test_cells_are_measured_exactly(matrix):
    dense = matrix.toarray()
    mito = np.arange(matrix.shape[1]) % 3 == 0
    ribo = np.arange(matrix.shape[1]) % 4 == 1

    table = run(source_of(matrix), [], rules=CellRules(marks={"mito": mito, "ribo": ribo}))

    total = dense.sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(table.totals, total, rtol=1e-12)
    np.testing.assert_array_equal(table.n_genes, np.count_nonzero(dense, axis=1))
    for kind, mask in (("mito", mito), ("ribo", ribo)):
        own = dense[:, mask].sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(table.marked[kind], own, rtol=1e-12)
        np.testing.assert_allclose(table.share(kind), own / np.where(total > 0, total, 1))


def test_gene_moments_are_those_of_the_matrix(matrix):
    dense = matrix.toarray().astype(np.float64)
    moments = GeneMoments(matrix.shape[1], single=False)

    run(source_of(matrix), [moments])

    np.testing.assert_array_equal(moments.total[0, :, 0], np.count_nonzero(dense, axis=0))
    np.testing.assert_allclose(moments.total[0, :, 1], dense.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.total[0, :, 2], (dense**2).sum(axis=0), rtol=1e-12)


def test_squares_of_single_precision_counts_round_as_scanpy_rounds_them():
    matrix = sparse.csr_matrix(np.array([[4097.0], [3.0]], np.float32))
    rounded, exact = GeneMoments(1), GeneMoments(1, single=False)

    run(source_of(matrix), [rounded, exact])

    assert rounded.total[0, 0, 2] == float(np.float32(4097) * np.float32(4097)) + 9
    assert exact.total[0, 0, 2] == 4097**2 + 9
    assert rounded.total[0, 0, 2] != exact.total[0, 0, 2]


@pytest.mark.parametrize("linear", [False, True])
def test_normalised_moments_round_as_numpy_does_step_by_step(matrix, linear):
    dense = matrix.toarray()
    moments = NormalizedMoments(matrix.shape[1], target_sum=1e4, linear=linear)

    run(source_of(matrix), [moments])

    normal = np.log1p(dense / scale_of(dense, 1e4))
    normal = np.expm1(normal) if linear else normal
    assert normal.dtype == np.float32
    squares = (normal * normal).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        moments.total[0, :, 1], normal.sum(axis=0, dtype=np.float64), rtol=1e-13
    )
    np.testing.assert_allclose(moments.total[0, :, 2], squares, rtol=1e-13)


def test_log1p_values_are_taken_as_they_are():
    logged = draw(300, 20, 4)
    logged.data = np.log1p(logged.data)
    moments = NormalizedMoments(20, target_sum=None, linear=True)

    run(source_of(logged), [moments])

    wanted = np.expm1(logged.toarray()).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(moments.total[0, :, 1], wanted, rtol=1e-13)


def test_batches_are_kept_apart_and_cells_without_one_left_out(matrix):
    dense = matrix.toarray().astype(np.float64)
    codes = (np.arange(matrix.shape[0]) % 4).astype(np.int32) - 1
    moments = GeneMoments(matrix.shape[1], codes=codes, n_batches=3, single=False)

    run(source_of(matrix), [moments])

    for batch in range(3):
        wanted = dense[codes == batch].sum(axis=0)
        np.testing.assert_allclose(moments.total[batch, :, 1], wanted, rtol=1e-12)


def test_rules_leave_cells_out_of_everything():
    matrix = draw(900, 60, 5)
    dense = matrix.toarray()
    mito = np.arange(60) < 12
    allowed = np.arange(900) % 7 != 0
    rules = CellRules(
        marks={"mito": mito}, min_genes=5, min_counts=20, max_share={"mito": 0.3}, allowed=allowed
    )
    moments = GeneMoments(60)

    table = run(source_of(matrix), [moments], rules=rules)

    total = dense.sum(axis=1)
    share = dense[:, mito].sum(axis=1) / np.where(total > 0, total, 1)
    kept = (np.count_nonzero(dense, axis=1) >= 5) & (total >= 20) & (share <= 0.3) & allowed
    assert 0 < kept.sum() < 900
    np.testing.assert_array_equal(table.kept, kept)
    np.testing.assert_array_equal(moments.total[0, :, 1], dense[kept].sum(axis=0))


@pytest.mark.parametrize("bins", [0, 16, 240])
def test_histogram_and_second_pass_give_the_same_clipped_sums(bins):
    from vcell.kernels import clipped

    matrix = draw(1500, 80, 6, high=5)
    codes = (np.arange(1500) % 3).astype(np.int32)
    clip = np.random.default_rng(0).uniform(0.5, 90, (3, 80))
    histogram = CountHistogram(80, codes=codes, n_batches=3, bins=bins)
    again = ClippedSums(clip, codes=codes)
    moments = GeneMoments(80, codes=codes, n_batches=3)

    run(source_of(matrix), [histogram, again, moments])

    histogram.collect()
    assert not histogram.overflowed
    h = (histogram.small, histogram.high, histogram.large)
    sums, exact = np.empty((3, 80, 3)), np.empty((3, 80, 3))
    clipped.clip_histogram(*h, clip, sums)
    clipped.histogram_moments(*h, True, exact)
    np.testing.assert_array_equal(sums, again.total)
    np.testing.assert_array_equal(exact, moments.total)
    dense = matrix.toarray()[codes == 1].astype(np.float64)
    below = np.where(dense <= clip[1], dense, 0)
    np.testing.assert_array_equal(sums[1, :, 0], below.sum(axis=0))
    np.testing.assert_array_equal(sums[1, :, 2], (dense > clip[1]).sum(axis=0))


def test_histogram_says_when_it_cannot_hold_the_values():
    fractional, crowded = CountHistogram(50), CountHistogram(50, bins=0, max_large=3)
    run(source_of(draw(600, 50, 3).multiply(0.37).tocsr()), [fractional])
    run(source_of(draw(600, 50, 3)), [crowded])
    assert fractional.fractional
    assert crowded.overflowed
    assert not crowded.fractional


def test_group_sums_are_an_indicator_matrix_times_the_cells(matrix):
    codes = np.random.default_rng(1).integers(-1, 5, matrix.shape[0]).astype(np.int32)
    whole = bool((matrix.data == np.rint(matrix.data)).all())
    sums = GroupSums(matrix.shape[1], codes, 5, whole=whole)
    logs = GroupLogMoments(matrix.shape[1], codes, 5, target_sum=1e4)

    run(source_of(matrix), [sums, logs])

    dense = matrix.toarray().astype(np.float64)
    normal = np.log1p(dense / scale_of(matrix.toarray(), 1e4))
    indicator = codes == np.arange(5)[:, None]
    np.testing.assert_allclose(sums.sums, indicator @ dense, rtol=1e-6, atol=1e-6 * len(dense))
    if whole:
        np.testing.assert_array_equal(sums.sums, indicator @ dense)
    room = len(dense) / ONE  # each value is rounded to half a unit
    np.testing.assert_allclose(logs.total[..., 0] / ONE, indicator @ normal, atol=room)
    np.testing.assert_allclose(logs.total[..., 1] / ONE, indicator @ normal**2, atol=room)


def test_rare_entries_are_all_those_of_rare_genes():
    matrix = draw(800, 300, 8, high=6)
    dense = matrix.toarray()
    rare = RareEntries(300, 5)

    run(source_of(matrix), [rare])

    dropped = np.count_nonzero(dense, axis=0) < 5
    np.testing.assert_array_equal(rare.dropped(), dropped)
    cells, losses = rare.losses(800)
    wanted = dense[:, dropped].sum(axis=1)
    np.testing.assert_array_equal(cells, np.flatnonzero(wanted))
    np.testing.assert_array_equal(losses, wanted[cells])
