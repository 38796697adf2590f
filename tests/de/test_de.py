"""`vcell de`: scipy's numbers, in pdex's and scanpy's columns, from chunks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.de.conftest import cells


def values(file, *, log: bool = True) -> tuple[np.ndarray, np.ndarray]:
    x = file.X.toarray().astype(np.float32)
    if log:
        totals = x.sum(axis=1)
        x = np.log1p(x / (totals / np.median(totals))[:, None])
    return x.astype(np.float64), file.obs["perturbation"].to_numpy(str)


def run(here, *words, name: str = "de.parquet") -> pd.DataFrame:
    ran = here("de", "cells.h5ad", "-o", name, "--overwrite", *words)
    assert ran.code == 0, ran.err
    path = here.folder / name
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def test_ranks_against_control_equal_scipys(here):
    table = run(here)
    x, labels = values(cells())
    for name in "abc":
        mine = table[table["target"] == name]
        a, b = x[labels == name], x[labels == "control"]
        r = stats.mannwhitneyu(a, b, axis=0, method="asymptotic")
        p = np.where(np.isnan(r.pvalue), 1, r.pvalue)
        assert (mine["statistic"].to_numpy() == r.statistic).all()
        np.testing.assert_allclose(mine["p_value"], p, rtol=1e-12)
        np.testing.assert_allclose(mine["fdr"], stats.false_discovery_control(p), rtol=1e-12)
        means = np.expm1(a.mean(axis=0)), np.expm1(b.mean(axis=0))
        np.testing.assert_allclose(mine["target_mean"], means[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(mine["ref_mean"], means[1], rtol=1e-5, atol=1e-7)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = (means[0] - means[1]) / means[1]
        change[np.isnan(change)] = 0
        np.testing.assert_allclose(mine["percent_change"], change, rtol=1e-4, atol=1e-5)
        assert (mine["target_membership"] == len(a)).all()
        assert (mine["ref_membership"] == len(b)).all()


def test_ranks_against_the_rest_equal_scipys(here):
    table = run(here, "--against", "rest")
    x, labels = values(cells())
    for name in ("a", "b", "c", "control"):
        mine = table[table["target"] == name]
        r = stats.mannwhitneyu(x[labels == name], x[labels != name], axis=0, method="asymptotic")
        assert (mine["statistic"].to_numpy() == r.statistic).all()
        np.testing.assert_allclose(
            mine["p_value"], np.where(np.isnan(r.pvalue), 1, r.pvalue), rtol=1e-12
        )


@pytest.mark.parametrize("against", ["control", "rest"])
def test_the_t_test_is_welchs(here, against):
    table = run(here, "--test", "t-test", "--against", against)
    x, labels = values(cells())
    for name in "abc":
        other = labels == "control" if against == "control" else labels != name
        r = stats.ttest_ind(x[labels == name], x[other], equal_var=False)
        p = np.where(np.isnan(r.pvalue), 1, r.pvalue)
        mine = table[table["target"] == name]
        np.testing.assert_allclose(mine["p_value"], p, rtol=1e-5)
        np.testing.assert_allclose(
            mine["statistic"], np.where(np.isnan(r.statistic), 0, r.statistic), rtol=1e-5
        )


def test_one_fdr_over_all_tests(here):
    table = run(here, "--fdr", "global")
    np.testing.assert_allclose(
        table["fdr"], stats.false_discovery_control(table["p_value"]), rtol=1e-12
    )


def test_fold_changes_by_name(here):
    x, labels = values(cells())
    a, b = x[labels == "a"], x[labels == "control"]
    clipped = run(here, "--fold-change", "clipped")
    mine = clipped[clipped["target"] == "a"]["log2_fold_change"].to_numpy()
    assert np.isfinite(mine).all()
    assert mine[7] == 0
    arithmetic = run(here, "--fold-change", "arithmetic")
    mine = arithmetic[arithmetic["target"] == "a"]["log2_fold_change"]
    means = np.expm1(a).mean(axis=0) + 1e-9, np.expm1(b).mean(axis=0) + 1e-9
    np.testing.assert_allclose(mine, np.log2(means[0] / means[1]), rtol=1e-5, atol=1e-6)


def test_scanpys_columns_are_sorted_by_score(here):
    table = run(here, "--layout", "scanpy", name="de.csv")
    assert list(table) == ["group", "names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
    for _, group in table.groupby("group"):
        assert (np.diff(group["scores"]) <= 0).all()
        assert len(set(group["names"])) == 40


def test_the_gate_reads_the_controls_alone(here):
    x, labels = values(cells(), log=False)
    cpm = (x / x.sum(axis=1, keepdims=True) * 1e6)[labels == "control"].mean(axis=0)
    limit = float(np.median(cpm))
    table = run(here, "--min-cpm", limit)
    kept = {f"G{i}" for i in np.flatnonzero(cpm > limit)}
    assert set(table["feature"]) == kept
    one = table[table["target"] == "a"]
    np.testing.assert_allclose(
        one["fdr"], stats.false_discovery_control(one["p_value"]), rtol=1e-12
    )


def test_strata_are_tested_by_themselves(here):
    table = run(here, "--stratify", "batch")
    file = cells()
    one = file[file.obs["batch"] == "y"].copy()
    x, labels = values(file)
    keep = (file.obs["batch"] == "y").to_numpy()
    r = stats.mannwhitneyu(
        x[keep & (labels == "a")], x[keep & (labels == "control")], axis=0, method="asymptotic"
    )
    mine = table[(table["stratum"] == "y") & (table["target"] == "a")]
    assert (mine["statistic"].to_numpy() == r.statistic).all()
    assert (mine["target_membership"] == (one.obs["perturbation"] == "a").sum()).all()


def test_values_as_stored_may_be_negative(here):
    file = cells()
    x = file.X.toarray() - 1.5
    x[np.abs(x) > 1] = 0
    file.X = x
    file.write_h5ad(here.folder / "cells.h5ad")
    assert here("de", "cells.h5ad", "-o", "de.csv").code == 2
    table = run(here, "--values", "stored")
    labels = file.obs["perturbation"].to_numpy(str)
    r = stats.mannwhitneyu(x[labels == "b"], x[labels == "control"], axis=0, method="asymptotic")
    mine = table[table["target"] == "b"]
    assert (mine["statistic"].to_numpy() == r.statistic).all()


def test_perturbations_of_the_same_targets_are_named(here):
    screen = cells()
    names = {"a": "G3+ctrl", "b": "ctrl+G3", "c": "G3+G4"}
    screen.obs["perturbation"] = screen.obs["perturbation"].astype(str).replace(names)
    screen.write_h5ad(here.folder / "cells.h5ad")
    ran = here("de", "cells.h5ad", "-o", "de.csv")
    assert ran.code == 0
    assert "count as different ones: 'G3+ctrl' and 'ctrl+G3'\n" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no output is named"),
        (["-o", "de.txt"], ".parquet or .csv"),
        (["-o", "none/de.csv"], "none is not a folder"),
        (["-o", "de.csv", "--control", "ctl"], "no cell labelled 'ctl'"),
        (["-o", "de.csv", "--stratify", "bach"], "did you mean batch"),
        (["-o", "de.csv", "--min-cpm", "1e7"], "no gene is expressed that much"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(here, words, said):
    ran = here("de", "cells.h5ad", *words)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in here.folder.iterdir()] == ["cells.h5ad"]
