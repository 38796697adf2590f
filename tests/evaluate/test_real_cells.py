"""On 600 real cells of the challenge: one half as the prediction of the other."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from tests.evaluate import reference, reference_2026


@pytest.fixture
def halves(shared_data, here):
    cells = ad.read_h5ad(shared_data / "vcc25/H1-VCC-2025-training_600x1000.h5ad")
    cells = ad.AnnData(cells.X, cells.obs[["target_gene"]].copy(), cells.var[[]].copy())
    sides = cells[::2].copy(), cells[1::2].copy()
    for name, side in zip(("real", "pred"), sides, strict=True):
        side.write_h5ad(here.folder / f"{name}.h5ad")
    return sides


def test_2025(here, halves):
    ran = here("evaluate", "pred.h5ad", "real.h5ad", "-o", "out", "--overwrite")
    assert ran.code == 0, ran.err
    table = pd.read_csv(here.folder / "out/results.csv").set_index("perturbation")
    assert table["overlap_at_N"].to_dict() == reference.des(*halves)
    assert table["discrimination_score_l1"].to_dict() == reference.pds(*halves)
    mae = reference.mae(*halves)
    np.testing.assert_allclose(table["mae"], [mae[p] for p in table.index], rtol=1e-6)


def test_2026(here, halves):
    ran = here(
        "evaluate", "pred.h5ad", "real.h5ad", "--rules", "vcc2026", "--no-baseline", "--json"
    )
    assert ran.code == 0, ran.err
    for name, value in reference_2026.members(*halves).items():
        assert ran.json["metrics"][name]["raw"] == pytest.approx(value, rel=1e-8), name
