"""Shifts against a real screen: agreement is found if it is planted, and only then."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr
from vcell_isp import agreement
from vcell_isp.agreement import FEWEST, answered

from vcell.screen.prior_effects import PriorEffects


def test_the_correlation_is_scipys_and_its_interval_holds_the_truth():
    rng = np.random.default_rng(0)
    shift, measured, other = rng.normal(size=(3, 200))
    measured += 0.5 * shift
    shift[:9] = shift[0]  # ties
    found = answered("size", ("g",) * 200, shift, measured, other)
    assert found.rho == pytest.approx(spearmanr(shift, measured).statistic, abs=1e-12)
    assert found.alone == pytest.approx(spearmanr(other, measured).statistic, abs=1e-12)
    assert found.low < found.rho < found.high
    assert found.verdict == "the shifts agree with the screen, and beat expression alone"


def test_verdicts_claim_no_more_than_the_intervals():
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 150))
    names = ("g",) * 150
    assert "contradict" in answered("size", names, x, -x + 0.1 * noise, noise).verdict
    assert "not shown to beat" in answered("size", names, x, x + 0.1 * noise, x).verdict
    few = answered("size", names[:5], x[:5], x[:5], noise[:5])
    assert few.verdict == f"too few genes in both: 5, {FEWEST} are needed"
    assert np.isnan(few.low)
    assert "constant" in answered("size", names, np.zeros(150), x, noise).verdict
    wrong = [
        "no agreement" not in answered("size", names, *rng.normal(size=(3, 150))).verdict
        for _ in range(40)
    ]
    assert np.mean(wrong) < 0.2  # 95 % intervals


def test_expression_that_predicts_with_the_other_sign_must_be_beaten_too():
    rng = np.random.default_rng(2)
    measured, a, b = rng.normal(size=(3, 200))
    names = ("g",) * 200
    found = answered("size", names, measured + 2 * a, measured, -measured + 0.5 * b)
    assert found.alone < -0.8
    assert found.low > 0
    assert found.gain_high < 0
    assert "not shown to beat" in found.verdict
    text = f"{found.alone:.2f} (more by {found.rho + found.alone:.2f}, {found.gain_low:.2f} to "
    assert text in found.text()


def test_expression_that_is_the_same_everywhere_is_not_beaten():
    rng = np.random.default_rng(3)
    measured, noise = rng.normal(size=(2, 200))
    found = answered("size", ("g",) * 200, measured + noise, measured, np.ones(200))
    assert found.verdict == (
        "the shifts agree with the screen, but expression alone is constant here"
    )


@pytest.fixture
def screened(isp, vcell, tmp_path, cells):
    """A finished run, its mean shifts, and a function that compares it with effects."""
    ran = isp("--max-cells", 12, "--no-gates")
    assert ran.code == 0, ran.err
    folder = tmp_path / ran.json["run"]
    lines = pq.read_table(folder / "shifts.parquet").to_pandas()
    means = lines.groupby("ensembl_id")["shift_well"].mean()
    genes = [f"ENSG{i:011d}" for i in range(2, 120)]

    def compare(strength, *words, rows=means, cells_file=None):
        effect = np.zeros((len(rows), len(genes)), np.float32)
        effect[:, 8:18] = strength * rows.to_numpy()[:, None] / np.abs(rows).max()
        error = np.full_like(effect, 1e-3)
        n = len(rows)
        made = PriorEffects(
            genes, list(rows.index), ["k562"] * n, np.full(n, 100, np.int64), effect, error
        )
        made.write(tmp_path / "effects.parquet", {})
        if cells_file is not None:
            meta = json.loads((folder / "run.json").read_text())
            meta["data"][0]["path"] = str(cells_file)
            (folder / "run.json").write_text(json.dumps(meta))
        ran = vcell(
            "isp", "stats", folder, "--perturb-seq", "effects.parquet", "-o", "genes.csv",
            "--min-cells", 1, "--overwrite", "--json", *words,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        return ran.json["perturb_seq"][folder.name], ran

    return compare


def test_a_planted_direction_is_found_and_an_activation_has_the_opposite_sign(screened, tmp_path):
    found, _ = screened(1.0)
    assert found["direction"]["spearman"] > 0.9
    assert found["direction"]["verdict"].startswith("the shifts agree with the screen")
    assert 0 < found["direction"]["low"] < found["direction"]["high"]
    assert -1 <= found["size"]["spearman"] <= 1
    assert "Agreement with a perturbation screen" in (tmp_path / "genes.html").read_text()
    found, _ = screened(1.0, "--perturb-seq-kind", "activation")
    assert found["direction"]["verdict"] == "the shifts contradict the screen"


def test_detection_counts_cells_that_express_a_gene_not_those_it_was_put_into(
    isp, vcell, tmp_path, screened, monkeypatch
):
    """Every listed gene is put into every cell: as events, all are detected alike."""
    names = [f"ENSG{i:011d}" for i in range(2, 62)]
    (tmp_path / "genes.txt").write_text("\n".join(names) + "\n")
    ran = isp(
        "--max-cells", 8, "--no-gates", "--perturb", "overexpress", "--genes", "each:genes.txt"
    )
    assert ran.code == 0, ran.err
    lines = pq.read_table(tmp_path / ran.json["run"] / "shifts.parquet").to_pandas()
    events = lines["ensembl_id"].value_counts()
    assert events.max() - events.min() <= 1
    _, _ = screened(1.0)  # writes effects.parquet
    given = {}

    def answering(question, genes, *values):
        given[question] = dict(zip(genes, values[-1].tolist(), strict=True))
        return answered(question, genes, *values)

    monkeypatch.setattr(agreement, "answered", answering)
    told = vcell(
        "isp", "stats", tmp_path / ran.json["run"], "--perturb-seq", "effects.parquet", "-o",
        "other.csv", "--min-cells", 1, "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    expressed = lines[lines["rank"] >= 0].groupby("symbol").size()
    assert len(given["size"]) > FEWEST
    assert given["size"] == {name: expressed.get(name, 0) for name in given["size"]}


def test_without_the_cells_only_sizes_are_compared_with_a_message(screened, tmp_path):
    found, ran = screened(1.0, cells_file=tmp_path / "gone.h5ad")
    assert set(found) == {"size"}
    assert "are not at" in ran.err


def test_too_few_common_genes_give_no_verdict(screened):
    few = pd.Series([0.5, -0.5], index=["ENSG00000000012", "ENSG00000000014"])
    found, _ = screened(1.0, rows=few)
    assert "too few genes" in found["direction"]["verdict"]
    assert found["direction"]["low"] is None


def test_a_screen_of_cells_gives_what_its_file_of_effects_gives(isp, vcell, tmp_path):
    ran = isp("--max-cells", 4, "--no-gates")
    rng = np.random.default_rng(3)
    genes = [f"ENSG{i:011d}" for i in range(2, 120)]
    targets = np.repeat(["control", *genes[:70]], 11)
    anndata.AnnData(
        sp.csr_matrix(rng.poisson(3.0, (len(targets), len(genes))).astype(np.float32)),
        obs=pd.DataFrame({"guide": targets}, index=[f"s{i}" for i in range(len(targets))]),
        var=pd.DataFrame(index=genes),
    ).write_h5ad(tmp_path / "screen.h5ad")
    columns = ("--perturbation-column", "guide", "--control", "control")
    measured = vcell("effects", "screen.h5ad", "-o", "screen.parquet", *columns)
    assert measured.code == 0, measured.err
    words = ["isp", "stats", ran.json["run"], "--min-cells", 1, "-o", "genes.csv", "--overwrite"]
    one = vcell(*words, "--perturb-seq", "screen.h5ad", *columns, "--json")
    other = vcell(*words, "--perturb-seq", "screen.parquet", "--json")
    assert one.code == 0, one.err
    assert one.json["perturb_seq"] == other.json["perturb_seq"]
    assert next(iter(one.json["perturb_seq"].values()))["size"]["genes"] >= FEWEST
    refused = vcell(*words, "--perturb-seq", "screen.h5ad", "--perturbation-column", "target")
    assert refused.code == 2
    assert "target" in refused.err


def test_other_files_than_screens_are_refused(vcell, cells, isp):
    ran = isp("--max-cells", 3, "--no-gates")
    words = ["isp", "stats", ran.json["run"], "--perturb-seq"]
    refused = vcell(*words, cells)  # no column of it names perturbations
    assert refused.code == 2
    assert "perturbation" in refused.err
    assert "does not exist" in vcell(*words, "nothing.parquet").err
    assert "goes with --mode genes" in vcell(*words, cells, "--mode", "aggregate").err
