"""The scale of 2026 is cell-eval2's, from files to the overall score (parity_2026_score.py)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from vcell_evaluate import layout

from tests.metrics.cells import GOLDEN
from tests.metrics.test_parity_2026 import Case
from vcell.metrics import vcc2026

AGGREGATED = sorted(path.stem.removeprefix("agg2026-") for path in GOLDEN.glob("agg2026-*.csv"))
CASES = sorted(path.stem.removeprefix("score2026-") for path in GOLDEN.glob("score2026-*.npz"))


def test_there_are_golden_files():
    assert AGGREGATED == ["plain", "quiet", "single", "tied", "unbalanced"]
    assert CASES == ["dense", "plain", "sparse", "tied", "unbalanced"]


@pytest.mark.parametrize("name", CASES)
def test_scaled_members_and_the_overall_score(name):
    """Our members between our own ends; that the ends are the peer's is test_parity_2026."""
    with np.load(GOLDEN / f"score2026-{name}.npz", allow_pickle=False) as stored:
        expected = {key: float(value) for key, value in stored.items()}
    case = Case(name)
    values = case.members(case.with_real_controls(case.pred, case.pred_group))[1]
    scaled = {
        member: vcc2026.scale(
            member, values[member], float(case.golden[f"base_{member}"]),
            float(np.mean(case.golden[f"split_{member}"])),
        )
        for member in vcc2026.MEMBERS
    }  # fmt: skip
    for member, value in scaled.items():
        np.testing.assert_allclose(value, expected[f"scaled_{member}"], rtol=1e-8, err_msg=member)
    np.testing.assert_allclose(np.mean(list(scaled.values())), expected["overall"], rtol=1e-8)


@pytest.mark.parametrize("name", AGGREGATED)
def test_the_summary_over_perturbations(name):
    expected = pd.read_csv(GOLDEN / f"agg2026-{name}.csv", index_col="statistic")
    case = Case(name)
    pred = case.with_real_controls(case.pred, case.pred_group)
    rows, values = case.members(pred)
    rows |= vcc2026.components(case.whole, pred, case.target)
    found = layout.aggregate_2026(rows, {vcc2026.MSE: values[vcc2026.MSE]}, (vcc2026.NMAE,))
    found = pd.DataFrame(found).set_index("statistic")
    assert found.index.tolist() == expected.index.tolist()
    assert found.columns.tolist() == expected.columns.tolist()
    # atol: the spread of what is 1 but for rounding
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_what_has_no_value_is_counted_as_the_peer_counts_it():
    """Checked by hand: one perturbation without effect on either side (0.20.0)."""
    column = np.array([0.5, np.nan, 0.25])
    found = layout.aggregate_2026({"kept": column, "left out": column}, {}, ("left out",))
    table = pd.DataFrame(found).set_index("statistic")
    assert table.loc["count"].to_dict() == {"kept": 3, "left out": 2}
    assert table.loc["mean"].to_dict() == {"kept": 0.375, "left out": 0.375}


@pytest.mark.parametrize("member", vcc2026.MEMBERS)
def test_every_value_is_scaled_as_the_peer_scales_it(member):
    """Missing and infinite values among them, and ends that define no scale."""
    with np.load(GOLDEN / "scale2026.npz", allow_pickle=False) as stored:
        grid, expected = stored["grid"], stored[f"scaled_{member}"]
    found = np.array([vcc2026.scale(member, *row) for row in grid.tolist()])
    assert np.isnan(expected).any()
    assert np.isfinite(expected).sum() > 100
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_missing_member_counts_as_the_worst():
    missing = float("nan")
    assert vcc2026.scale(vcc2026.PDS, missing, 0.5, 0.9) == pytest.approx(-0.5 / 0.4)
    assert vcc2026.scale(vcc2026.MSE, missing, 0.99, 0.03) == 0
    assert vcc2026.scale(vcc2026.NMAE, missing, 1.0, 0.4) == -6
