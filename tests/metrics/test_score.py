"""`score`: AnnData or paths in, the numbers of `vcell evaluate` out."""

from __future__ import annotations

import json

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


def test_sides_that_do_not_match_are_refused():
    pred = screen(2)
    pred.var_names = [f"H{i}" for i in range(pred.n_vars)]
    with pytest.raises(UserError, match="different genes"):
        score(pred, screen(1))
