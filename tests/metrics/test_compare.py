"""`de.compare`: the numbers of scipy and of `vcell de`, from AnnData, backed or not, or a path."""

from __future__ import annotations

import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.de.conftest import cells
from tests.evaluate.conftest import screen
from vcell.errors import UserError
from vcell.metrics import de


def test_counts_in_memory_are_tested_as_scipy_tests_log1p():
    adata = cells()
    before = adata.copy()
    table = de.compare(adata, perturbation_column="perturbation", control="control")
    counts, labels = adata.X.toarray(), adata.obs["perturbation"].to_numpy(str)
    totals = counts.sum(axis=1)
    x = np.log1p(counts / (totals / np.median(totals))[:, None]).astype(np.float64)
    for name in "abc":
        mine = table[table["target"] == name]
        r = stats.mannwhitneyu(
            x[labels == name], x[labels == "control"], axis=0, method="asymptotic"
        )
        p = np.where(np.isnan(r.pvalue), 1, r.pvalue)
        assert (mine["statistic"].to_numpy() == r.statistic).all()
        np.testing.assert_allclose(mine["p_value"], p, rtol=1e-12)
        np.testing.assert_allclose(mine["fdr"], stats.false_discovery_control(p), rtol=1e-12)
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)


@pytest.mark.parametrize("form", ["path", "backed", "dense", "layer", "source"])
def test_every_form_of_the_same_cells_gives_the_same_table(form, tmp_path):
    adata = cells()
    expected = de.compare(adata)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    if form == "path":
        found = de.compare(path)
    elif form == "backed":
        backed = ad.read_h5ad(path, backed="r")
        found = de.compare(backed)
        backed.file.close()
    elif form == "layer":
        other = ad.AnnData(adata.X * 0, obs=adata.obs, var=adata.var, layers={"counts": adata.X})
        found = de.compare(other, layer="counts")
    elif form == "source":
        from vcell.data import open_cells

        with open_cells(path) as source:
            found = de.compare(source)
    else:
        adata.X = adata.X.toarray()
        found = de.compare(adata)
        # numpy's means of dense cells differ from scipy's of sparse ones in the last bit
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-5)
        return
    pd.testing.assert_frame_equal(found, expected)


def test_scanpys_layout_says_the_same():
    table, ranked = de.compare(cells()), de.compare(cells(), layout="scanpy")
    assert list(ranked) == ["group", "names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
    both = table.astype({"target": str, "feature": str}).merge(
        ranked, left_on=["target", "feature"], right_on=["group", "names"]
    )
    assert len(both) == len(table) == len(ranked)
    assert (both["p_value"] == both["pvals"]).all()
    assert (both["fdr"] == both["pvals_adj"]).all()
    assert (both["log2_fold_change"] == both["logfoldchanges"]).all()
    for _, group in ranked.groupby("group"):
        assert (np.diff(group["scores"]) <= 0).all()


def test_strata_stand_under_one_another():
    table = de.compare(cells(), stratify="batch")
    assert table["stratum"].unique().tolist() == ["x", "y"]
    alone = cells()
    alone = de.compare(alone[alone.obs["batch"] == "x"].copy(), values="stored")
    mine = table[table["stratum"] == "x"]
    assert len(mine) == len(alone)


def test_what_cannot_be_tested_is_refused_in_a_sentence():
    adata = cells()
    adata.X = adata.X.toarray()
    adata.X[3, 4] = np.nan
    with pytest.raises(UserError, match="NaN or infinite: 1 value"):
        de.compare(adata)
    with pytest.raises(UserError, match="did you mean perturbation"):
        de.compare(cells(), perturbation_column="perturbaton")


def block(title: str) -> str:
    """Return the code under a title of docs/metrics.md, as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    return re.search(r"```python\n(.*?)```", page.split(f"## {title}")[1], re.S).group(1)


def test_the_page_on_tests_runs():
    names = {"adata": cells()}
    exec(block("Tests of AnnData, or of a path"), names)
    assert names["hits"]["a"] > 0
    assert set(names["ranked"]["group"]) == {"a", "b", "c", "control"}


def test_the_page_on_scores_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VCELL_CACHE", str(tmp_path))
    names = {"pred": screen(2), "real": screen(1)}
    exec(block("Scores of AnnData, or of files"), names)
    assert names["found"].overall > 0
