"""The scale of 2026 is cell-eval2's, from files to the overall score (parity_2026_score.py)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.metrics.cells import GOLDEN
from tests.metrics.test_parity_2026 import Case
from vcell.metrics import vcc2026

CASES = sorted(path.stem.removeprefix("score2026-") for path in GOLDEN.glob("score2026-*.npz"))


def test_there_are_golden_files():
    assert CASES == ["dense", "plain", "sparse", "tied", "unbalanced"]


@pytest.mark.parametrize("name", CASES)
def test_scaled_members_and_the_overall_score(name):
    """Our members between our own ends; that the ends are the peer's is test_parity_2026."""
    with np.load(GOLDEN / f"score2026-{name}.npz", allow_pickle=False) as stored:
        expected = {key: float(value) for key, value in stored.items()}
    case = Case(name)
    values = case.members(case.beside_controls(case.pred, case.pred_group))[1]
    scaled = {
        member: vcc2026.scale(
            member, values[member], float(case.golden[f"base_{member}"]),
            float(np.mean(case.golden[f"split_{member}"])),
        )
        for member in vcc2026.MEMBERS
    }  # fmt: skip
    for member, value in scaled.items():
        np.testing.assert_allclose(value, expected[f"scaled_{member}"], rtol=1e-8, err_msg=member)
    np.testing.assert_allclose(vcc2026.overall(scaled), expected["overall"], rtol=1e-8)


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
