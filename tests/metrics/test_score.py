"""`score`: AnnData or paths in, the numbers of `vcell evaluate` out."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest

from tests.evaluate.conftest import CONTROL, TARGETS, here, logged, screen  # noqa: F401
from vcell.errors import UserError
from vcell.metrics import score
from vcell.metrics.evaluation.scoring import Score


@pytest.mark.parametrize("rules", ["vcc2025", "vcc2025-official", "vcc2026"])
def test_the_call_gives_what_the_command_gives(here, rules):  # noqa: F811
    said = json.loads(here("evaluate", "pred.h5ad", "real.h5ad", "--rules", rules, "--json").out)
    for given in ((screen(2), screen(1)), ("pred.h5ad", "real.h5ad")):
        found = score(*given, rules, cache=here.folder / "kept")
        assert isinstance(found, Score)
        np.testing.assert_allclose(found.overall, said["overall"], rtol=1e-12)
        for name, values in said["metrics"].items():
            for part in ("raw", "baseline", "scaled"):
                np.testing.assert_allclose(found.metrics.loc[name, part], values[part], rtol=1e-12)
        assert found.per_perturbation["perturbation"].tolist() == TARGETS


def test_nothing_given_is_changed(tmp_path):
    pred, real = logged(screen(2)), logged(screen(1))
    before = pred.X.copy(), real.X.copy()
    score(pred, real, cache=tmp_path)
    assert (before[0] != pred.X).nnz == 0
    assert (before[1] != real.X).nnz == 0


def test_every_metric_of_the_full_profile(tmp_path):
    pred = screen(2)
    pred = pred[pred.obs["target_gene"] != CONTROL].copy()  # the real controls stand in
    found = score(pred, screen(1), "full", cache=tmp_path)
    assert len(found.metrics) >= 27
    assert 0 < found.metrics.loc["pearson_edistance", "raw"] <= 1
    assert np.isnan(found.metrics.loc["pearson_edistance", "baseline"])
    assert found.overall is not None


def test_a_copy_is_perfect(tmp_path):
    found = score(screen(1), screen(1), "full", cache=tmp_path)
    for name in ("overlap_at_N", "pearson_edistance", "pearson_delta", "de_direction_match"):
        assert found.metrics.loc[name, "raw"] == pytest.approx(1)
    assert found.overall == pytest.approx(1)


@pytest.mark.parametrize("dense", [(True, True), (True, False), (False, True)])
def test_lent_controls_are_as_controls_pasted_in(dense, tmp_path):
    """Dense beside sparse too: the values are the same, rounded as anndata would stack them."""
    real, pred = logged(screen(1)), logged(screen(2))
    pred = pred[pred.obs["target_gene"] != CONTROL].copy()
    controls = real[real.obs["target_gene"] == CONTROL]
    pasted = ad.concat([controls, pred], index_unique="-", keys=["real", "pred"])
    pasted.var = real.var
    real.X = real.X.toarray() if dense[0] else real.X
    pred.X = pred.X.toarray() if dense[1] else pred.X
    pasted.X = pasted.X.toarray() if all(dense) else pasted.X
    lent, given = (score(p, real, cache=tmp_path) for p in (pred, pasted))
    for name in lent.per_perturbation.columns[1:]:
        a, b = (found.per_perturbation[name].to_numpy() for found in (lent, given))
        np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=name)


def test_a_group_of_one_cell_and_a_silent_gene(tmp_path):
    real, pred = screen(1), screen(2)
    for cells in (real, pred):
        cells.X = cells.X.toarray()
        cells.X[:, 11] = 0
    first = np.flatnonzero(real.obs["target_gene"] == TARGETS[0])
    real = real[np.setdiff1d(np.arange(real.n_obs), first[1:])].copy()
    for rules in ("vcc2025", "vcc2026"):
        found = score(pred, real, rules, cache=tmp_path)
        raw = found.metrics["raw"]
        assert np.isfinite(raw).all()
        assert found.per_perturbation["perturbation"].tolist() == TARGETS


def test_sides_that_do_not_match_are_refused():
    pred = screen(2)
    pred.var_names = [f"H{i}" for i in range(pred.n_vars)]
    with pytest.raises(UserError, match="different genes"):
        score(pred, screen(1))
