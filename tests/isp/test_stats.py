"""Upstream's tables to the last digit, and genes.csv with what could not be tested."""

from __future__ import annotations

import re
import time

import numpy as np
import pandas as pd
import pytest
from vcell_isp import tables
from vcell_isp.design import PerturbedGenes

from tests.isp import upstream
from tests.isp.made_up import run_of, shifts_of


def lists(frame, column):
    ordered = frame.sort_values(["gene", "cell"])
    return {int(g): rows[column].tolist() for g, rows in ordered.groupby("gene")}


def made(vcell, tmp_path, run, mode, *words):
    """Return one of upstream's tables as written by the command."""
    ran = vcell("isp", "stats", run.path, "--mode", mode, "-o", "out.csv", "--overwrite", *words)
    assert ran.code == 0, ran.err
    return pd.read_csv(tmp_path / "out.csv", index_col=0)


def check(got, want):
    """Compare columns, index, order of rows, and numbers to 1e-12."""
    assert list(got.columns) == list(want.columns)
    assert got.index.tolist() == want.index.tolist()
    for name in want.columns:
        if want[name].dtype.kind in "fi":
            np.testing.assert_allclose(got[name], want[name], rtol=1e-12, atol=1e-300)
        else:
            assert got[name].tolist() == want[name].tolist()


@pytest.mark.parametrize(
    ("n_genes", "n_cells"), [(30, 12), pytest.param(1060, 100, marks=pytest.mark.slow)]
)
def test_goal_state_shift_is_upstreams(vcell, tmp_path, n_genes, n_cells):
    """The second size exceeds the pool of 100,000."""
    rng = np.random.default_rng(0)
    frame = shifts_of(rng, n_genes, n_cells, effect={7: 2e-3, 9: -2e-3}, detection=0.95)
    frame.loc[frame["gene"] == 11, "shift_well"] = 0.0  # ties
    got = made(vcell, tmp_path, run_of(tmp_path, frame), "goal_state_shift")
    other = lists(frame, "shift_other")
    check(got, upstream.goal_state_shift(lists(frame, "shift_well"), other=other))


def test_vs_null_is_upstreams(vcell, tmp_path):
    """One gene has no null, one has equal values in both, some tie, one is far off."""
    rng = np.random.default_rng(1)
    frame, null = shifts_of(rng, 20, 30), shifts_of(rng, 19, 25)
    frame.loc[frame["gene"] == 6, "cosine"] -= 0.1
    null.loc[null["gene"] == 7, "cosine"] = frame.loc[frame["gene"] == 7, "cosine"].iloc[0]
    frame["cosine"], null["cosine"] = frame["cosine"].round(4), null["cosine"].round(4)
    one, other = run_of(tmp_path, frame, goal=False), run_of(tmp_path, null, goal=False)
    got = made(vcell, tmp_path, one, "vs_null", "--null", other.path)
    check(got, upstream.vs_null(lists(frame, "cosine"), lists(null, "cosine")))


def test_the_mixture_is_scikit_learns_and_read_as_upstream_reads_it(vcell, tmp_path):
    pytest.importorskip("sklearn.mixture")
    frame = shifts_of(np.random.default_rng(2), 60, 20)
    frame.loc[frame["gene"] < 14, "cosine"] -= 0.05
    got = made(vcell, tmp_path, run_of(tmp_path, frame, goal=False), "mixture_model")
    check(got, upstream.mixture_model(lists(frame, "cosine")))


def test_aggregate_lists_every_cell(vcell, tmp_path):
    frame = shifts_of(np.random.default_rng(3), 4, 6, detection=0.8)
    got = made(vcell, tmp_path, run_of(tmp_path, frame), "aggregate")
    check(got, upstream.aggregate(lists(frame, "shift_well"), {g: f"G{g}" for g in range(4, 8)}))


def test_a_group_is_one_line_of_its_own_name(vcell, tmp_path):
    frame = shifts_of(np.random.default_rng(3), 1, 9)
    frame["gene"], frame["symbol"], frame["ensembl_id"] = -1, None, None
    run = run_of(tmp_path, frame, genes=PerturbedGenes("group", (5, 9), symbols=("G5", "G9")))
    well, other = (lists(frame, f"shift_{name}")[-1] for name in ("well", "other"))
    got = made(vcell, tmp_path, run, "goal_state_shift")
    check(got, upstream.one_shift_to_goal(well, other=other))
    got = made(vcell, tmp_path, run, "aggregate")
    check(got, upstream.aggregate({-1: well}, {-1: "('G5', 'G9')"}))


def genes_csv(vcell, tmp_path, *runs, words=()):
    ran = vcell("isp", "stats", *(r.path for r in runs), "-o", "genes.csv", "--json", *words)
    assert ran.code == 0, ran.err
    return pd.read_csv(tmp_path / "genes.csv").set_index(["gene", "operation"])


def test_planted_genes_are_called_and_rare_ones_are_not_run(vcell, tmp_path):
    rng = np.random.default_rng(4)
    frame = shifts_of(rng, 150, 30, effect={10: 4e-3, 20: -4e-3})
    frame = frame[(frame["gene"] != 30) | (frame["cell"] < 3)]
    frame = frame[(frame["gene"] != 31) | (frame["donor"] == "d1")]
    run = run_of(tmp_path, frame, missing={"nonsense": "no token in the vocabulary"})
    got = genes_csv(vcell, tmp_path, run).reset_index().set_index("gene")
    assert got.loc["G10", "status"] == "TOWARD"
    assert got.loc["G20", "status"] == "AWAY"
    share = got.loc["G10", "share_of_nulls"]
    assert share <= 2 / 100
    assert got.loc["G10", "rank_p"] == pytest.approx((1 + 100 * share) / 101)
    assert got.loc["G10", "fdr"] < 0.01
    assert got.loc["G10", "low"] < 4e-3 < got.loc["G10", "high"] + 1e-3
    assert (got.loc["G30", "status"], got.loc["G30", "why"]) == (
        "NOT_RUN", "in 3 cells; 10 are needed",
    )  # fmt: skip
    assert got.loc["G31", "why"] == "enough cells in 1 donor; 2 are needed"
    assert got.loc["nonsense", "why"] == "no token in the vocabulary"
    assert np.isnan(got.loc["nonsense", "effect"])
    others = got.drop(["G10", "G20", "G30", "G31", "nonsense"])
    assert (others["status"] == "OPEN").mean() > 0.9


def test_deletion_and_overexpression_are_compared(vcell, tmp_path):
    rng = np.random.default_rng(5)
    down = run_of(tmp_path, shifts_of(rng, 120, 30, effect={10: 5e-3, 11: 5e-3, 12: 5e-3}))
    up = run_of(
        tmp_path, shifts_of(rng, 120, 30, effect={10: -5e-3, 11: 5e-3}), operation="overexpress"
    )
    got = genes_csv(vcell, tmp_path, down, up)
    status = got["status"]
    assert (status["G10", "delete"], status["G10", "overexpress"]) == ("TOWARD", "AWAY")
    assert (status["G11", "delete"], status["G11", "overexpress"]) == ("INCOHERENT",) * 2
    assert status["G12", "delete"] == "DELETION_ONLY"
    page = (tmp_path / "genes.html").read_text()
    assert "Deletion against overexpression" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_matched_nulls_are_on_the_page_and_not_in_the_table(vcell, tmp_path):
    rng = np.random.default_rng(10)
    genes = PerturbedGenes(
        "each", (4, 5), controls={4: tuple(range(6, 26)), 5: tuple(range(26, 46))}
    )
    runs = [
        run_of(
            tmp_path, shifts_of(rng, 42, 30, effect={4: sign * 5e-3}), operation=how, genes=genes
        )
        for how, sign in (("delete", 1), ("overexpress", -1))
    ]
    got = genes_csv(vcell, tmp_path, *runs)
    assert set(got.index) == {(g, how) for g in ("G4", "G5") for how in ("delete", "overexpress")}
    assert got["nulls"].tolist() == [20] * 4
    page = (tmp_path / "genes.html").read_text()
    assert "matched nulls" in page
    cloud = page[page.index("Deletion against overexpression") :]
    assert len(re.findall(r"<title>G\d+: ", cloud[: cloud.index("</figure>")])) == 42


def test_under_no_effect_p_is_uniform(vcell, tmp_path):
    frame = shifts_of(np.random.default_rng(6), 300, 30)
    got = genes_csv(vcell, tmp_path, run_of(tmp_path, frame))
    assert 0.03 < (got["p"] <= 0.1).mean() < 0.17
    assert got["rank_p"].min() == pytest.approx(1 / 101)
    assert 0.03 < (got["rank_p"] <= 0.1).mean() < 0.17
    assert not got["status"].isin(["TOWARD", "AWAY"]).any()


def test_the_pool_of_one_gene_and_equal_values():
    p = tables.rank_sums(np.zeros(5), np.zeros(3), np.array([0, 3]))
    assert p.tolist() == [1.0]
    p = np.array([0.5, 0.01, 0.02])
    np.testing.assert_allclose(tables.adjusted(p), upstream.fdr_bh(p), rtol=1e-15)


@pytest.mark.slow
def test_a_full_screen_is_tested_within_a_minute_of_cpu_time():
    rng = np.random.default_rng(7)
    n_genes, n_cells = 11_000, 1_500
    values = rng.normal(size=n_genes * n_cells)
    frame = pd.DataFrame({
        "gene": np.repeat(np.arange(n_genes), n_cells),
        "cell": np.tile(np.arange(n_cells), n_genes),
        "symbol": "", "ensembl_id": "", "shift_well": values,
    })  # fmt: skip
    started = time.process_time()
    data = tables.GeneValues.of(frame, ["shift_well"])
    out = tables.goal_state_shift(data, "well", ())
    assert len(out) == n_genes
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no run"),
        (["RUN", "--mode", "vs_null"], "needs the run with the null"),
        (["RUN", "RUN", "--mode", "aggregate"], "is of one run, not of 2"),
        (["RUN", "-o", "out.txt"], "must end in .csv or .parquet"),
    ],
)
def test_bad_input_is_one_line(vcell, tmp_path, words, message):
    run = run_of(tmp_path, shifts_of(np.random.default_rng(8), 5, 4))
    ran = vcell("isp", "stats", *(str(run.path) if w == "RUN" else w for w in words))
    assert ran.code == 2
    assert message in ran.err


def test_two_runs_are_compared(vcell, tmp_path):
    rng = np.random.default_rng(9)
    frame = shifts_of(rng, 60, 20, effect={g: 1e-3 * (g % 7 - 3) for g in range(4, 64)})
    close = frame.copy()
    close["shift_well"] += rng.normal(0, 1e-5, len(frame))
    ran = vcell(
        "isp", "compare", run_of(tmp_path, frame).path, run_of(tmp_path, close).path, "--json"
    )
    assert ran.code == 0, ran.err
    found = ran.json["columns"]["shift_well"]
    assert found["spearman"] > 0.999
    assert found["top"] >= 18
    assert 0 < found["largest"] < 1e-4
