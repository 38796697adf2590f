"""The metrics and the tests are cell-eval's and pdex's (benchmarks/parity_2025.py)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from tests.metrics.cells import CONTROL, GOLDEN, blocks, numbered
from vcell.metrics import calls, scaled, significance, vcc2025
from vcell.metrics.groups import Grouped, summarise

CASES = sorted(path.stem.removeprefix("vcc2025-") for path in GOLDEN.glob("vcc2025-*.npz"))


class Case:
    """One golden file, both sides summed, ranked and tested."""

    def __init__(self, name: str, *, official: bool = False) -> None:
        self.name, self.official = name, official
        year = "official" if official else "vcc2025"
        with np.load(GOLDEN / f"{year}-{name}.npz", allow_pickle=False) as stored:
            self.golden = dict(stored)
        self.genes = self.golden["genes"]
        self.names, self.group = numbered(self.golden["real_labels"])
        self.real = self.side("real")
        self.pred = self.side("pred")
        self.real_table, self.pred_table = (self.table(s) for s in (self.real, self.pred))
        self.real_calls, self.pred_calls = (
            vcc2025.Calls(t) for t in (self.real_table, self.pred_table)
        )
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        self.target = np.array([place.get(name, -1) for name in self.names])

    def side(self, name: str) -> Grouped:
        group = numbered(self.golden[f"{name}_labels"])[1]
        dense = "dense" in self.name
        read = self.cells(name, dense=dense)
        return summarise(read, group, len(self.names) + 1, len(self.genes), dense=dense)

    def cells(self, name: str, *, dense: bool):
        """Return what reads one side as log1p."""
        x = sp.csr_matrix(self.golden[f"{name}_x"])
        if "counts" not in self.name:
            return blocks(x)
        seen = scaled.survey(blocks(x)(), x.shape[0])
        assert not seen.fractions
        divisor = scaled.divisors(seen.totals, scaled.median_target(seen.totals, sparse=not dense))
        return lambda: (scaled.logged(block, divisor[block.rows]) for block in blocks(x)())

    def table(self, side: Grouped) -> significance.DeTable:
        return significance.differential(
            side, np.array([CONTROL, *self.names]), self.genes,
            fold_change="clipped" if self.official else "geometric",
            scope="global" if self.official else "perturbation",
        )  # fmt: skip


@pytest.fixture(params=CASES, scope="module")
def case(request) -> Case:
    return Case(request.param)


def test_there_are_golden_files():
    assert CASES == ["counts", "dense", "dense-counts", "plain", "single", "tied", "unbalanced"]


def test_rank_tests_are_pdexs(case):
    golden, table = case.golden, case.real_table
    assert (table.u == golden["de_statistic"]).all()
    np.testing.assert_allclose(table.p, golden["de_p_value"], rtol=1e-9)
    np.testing.assert_allclose(table.fdr, golden["de_fdr"], rtol=1e-9)
    # log2 of a ratio of means of log1p, which differs in its last bit from processor to processor
    np.testing.assert_allclose(table.lfc, golden["de_log2_fold_change"], rtol=1e-6, atol=1e-6)


def test_p_values_are_scipys(case):
    read = case.cells("real", dense="dense" in case.name)
    x = sp.vstack([block.tocsr() for block in read()]).toarray().astype(np.float64)
    for row in range(len(case.names)):
        a, b = x[case.group == row + 1], x[case.group == 0]
        r = stats.mannwhitneyu(a, b, axis=0, method="asymptotic")
        expected = np.where(np.isnan(r.pvalue), 1.0, r.pvalue)
        np.testing.assert_allclose(case.real_table.p[row], expected, rtol=1e-12)


def test_des_and_its_kin(case):
    golden, real, pred = case.golden, case.real_calls, case.pred_calls
    for k in (None, 50, 100, 200, 500):
        name = k or "N"
        assert (vcc2025.overlap(real, pred, k) == golden[f"pert_overlap_at_{name}"]).all()
        assert (vcc2025.precision(real, pred, k) == golden[f"pert_precision_at_{name}"]).all()
    assert (real.counts == golden["pert_de_nsig_counts_real"]).all()
    assert (pred.counts == golden["pert_de_nsig_counts_pred"]).all()


def test_pds(case):
    truth, guess = (s.means[1:] - s.means[0] for s in (case.real, case.pred))
    for metric in ("l1", "l2", "cosine"):
        d = vcc2025.distances(truth, guess, case.target, metric)
        assert not vcc2025.tied(d)
        expected = case.golden[f"pert_discrimination_score_{metric}"]
        assert (vcc2025.discrimination(d) == expected).all()


def test_errors_and_correlation(case):
    real, pred, golden = case.real.means, case.pred.means, case.golden
    deltas = real[1:] - real[0], pred[1:] - pred[0]
    for name, found in (
        ("mae", vcc2025.absolute_error(real[1:], pred[1:])),
        ("mse", vcc2025.squared_error(real[1:], pred[1:])),
        ("mae_delta", vcc2025.absolute_error(*deltas)),
        ("mse_delta", vcc2025.squared_error(*deltas)),
        ("pearson_delta", vcc2025.pearson(*deltas)),
    ):
        # the peer averages in float32
        np.testing.assert_allclose(found, golden[f"pert_{name}"], rtol=1e-5, err_msg=name)
    mae = vcc2025.absolute_error(real[1:], pred[1:])
    np.testing.assert_allclose(mae, golden["pert_mae"], rtol=1e-6)


def test_the_rest_of_the_full_profile(case):
    golden, tables = case.golden, (case.real_table, case.pred_table)
    precision, roc = calls.areas(case.real_calls, case.pred_table)
    for name, found in (
        ("de_direction_match", calls.direction(*tables, case.real_calls)),
        ("de_spearman_lfc_sig", calls.fold_changes(*tables, case.real_calls)),
        ("de_sig_genes_recall", calls.recall(case.real_calls, case.pred_calls)),
        ("pr_auc", precision),
        ("roc_auc", roc),
    ):
        np.testing.assert_allclose(found, golden[f"pert_{name}"], rtol=1e-9, err_msg=name)
    number = np.unique(golden["pert_de_spearman_sig"])
    np.testing.assert_allclose(calls.numbers(case.real_calls, case.pred_calls), number, rtol=1e-9)


@pytest.mark.parametrize("name", ["plain", "tied", "single", "dense", "counts", "dense-counts"])
def test_the_leaderboards_versions(name):
    case = Case(name, official=True)
    golden, table = case.golden, case.real_table
    assert (table.u == golden["de_statistic"]).all()
    # it computes p in float32
    np.testing.assert_allclose(table.p, golden["de_p_value"], rtol=2e-5)
    np.testing.assert_allclose(table.fdr, golden["de_fdr"], rtol=2e-5)
    # pdex 0.1.27 adds float32 up in another order
    np.testing.assert_allclose(table.lfc, golden["de_log2_fold_change"], rtol=1e-4, atol=1e-5)
    des = vcc2025.overlap(case.real_calls, case.pred_calls)
    assert (des == golden["pert_overlap_at_N"]).all()
    truth, guess = (s.means[1:] - s.means[0] for s in (case.real, case.pred))
    pds = vcc2025.discrimination(vcc2025.distances(truth, guess, case.target))
    assert (pds == golden["pert_discrimination_score_l1"]).all()
    mae = vcc2025.absolute_error(case.real.means[1:], case.pred.means[1:])
    np.testing.assert_allclose(mae, golden["pert_mae"], rtol=1e-6)
