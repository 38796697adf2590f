"""`vcell evaluate --rules vcc2026`: the six members, their anchors, and what is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.evaluate import reference_2026 as reference
from tests.evaluate.conftest import CONTROL, logged, screen
from tests.evaluate.reference import halves


def run(here, *words):
    return here("evaluate", "pred.h5ad", "real.h5ad", "--rules", "vcc2026", "--json", *words)


def sparse(cells):
    """Keep counts low, so that there are many ties and some genes fail the gate."""
    x = cells.X.toarray()
    x[:, ::3] = np.minimum(x[:, ::3], 1)
    x[:, 4] = 0
    x[5:, 8] = 0
    cells.X = sp.csr_matrix(x)
    return cells


def unbalanced(cells):
    order = np.argsort(cells.obs["target_gene"].to_numpy(str), kind="stable")
    keep = np.concatenate([order[:3], order[40:]])
    return cells[np.sort(keep)].copy()


def alone(cells):
    return cells[cells.obs["target_gene"].isin(["G040", CONTROL])].copy()


def pinned(cells):
    """Give every perturbation the same cells: the claimed noise exceeds the spread."""
    labels = cells.obs["target_gene"].to_numpy(str)
    x = cells.X.toarray()
    first = np.flatnonzero(labels == "G005")
    for name in ("G017", "G040", "G077"):
        x[np.flatnonzero(labels == name)] = x[first]
    cells.X = sp.csr_matrix(x)
    return cells


def dense(cells):
    cells.X = cells.X.toarray()
    return cells


CASES = {
    "plain": (lambda c: c, lambda c: c),
    "tied": (sparse, sparse),
    "unbalanced": (unbalanced, lambda c: c),
    "one perturbation": (alone, alone),
    "pinned": (lambda c: c, pinned),
    "dense": (lambda c: c, dense),
}


@pytest.mark.parametrize("case", CASES)
def test_members_equal_a_plain_implementation(here, case):
    change_real, change_pred = CASES[case]
    real, pred = change_real(screen(1)), change_pred(screen(2))
    real.write_h5ad(here.folder / "real.h5ad")
    pred.write_h5ad(here.folder / "pred.h5ad")
    ran = run(here, "--no-baseline")
    assert ran.code == 0, ran.err
    if case == "dense":
        pred.X = sp.csr_matrix(pred.X)
    for name, value in reference.members(real, pred).items():
        raw = ran.json["metrics"][name]["raw"]
        if np.isnan(value):
            assert raw is None
        else:
            assert raw == pytest.approx(value, rel=1e-8, abs=1e-12), name


def test_a_score_is_scaled_between_baseline_and_replicate(here):
    ran = run(here, "-o", "out")
    assert ran.code == 0, ran.err
    scaled = []
    for name, m in ran.json["metrics"].items():
        share = (m["raw"] - m["baseline"]) / (m["ceiling"] - m["baseline"])
        if name == "expr_mse_unbiased_capped_norm":
            share = min(max(share, 0), 1)
        assert m["scaled"] == pytest.approx(share)
        scaled.append(m["scaled"])
    assert ran.json["overall"] == pytest.approx(np.mean(scaled))
    table = pd.read_csv(here.folder / "out/results.csv")
    assert list(table)[1:] == list(ran.json["metrics"])
    means = pd.read_csv(here.folder / "out/agg_results.csv", index_col="statistic").loc["mean"]
    for name, m in ran.json["metrics"].items():
        assert means[name] == pytest.approx(m["raw"], rel=1e-12)
    again = run(here)
    assert again.err.count("reused from an earlier run") == 2
    assert again.json["metrics"] == ran.json["metrics"]


def test_the_replicate_is_the_mean_of_five_halvings(here):
    """Split as documented; four members are the plain implementation's on the halves."""
    real = screen(1, cells=60, controls=120)
    real.write_h5ad(here.folder / "real.h5ad")
    screen(2, cells=60, controls=120).write_h5ad(here.folder / "pred.h5ad")
    ran = run(here)
    labels = real.obs["target_gene"].astype(str).to_numpy()
    scores = []
    for seed in np.random.SeedSequence(0).generate_state(5):
        rows = halves(labels, np.random.default_rng(int(seed)))
        a, b = (real[half].copy() for half in rows)
        error = reference.members(a, b)["expr_mse_unbiased_capped_norm"]  # needs no own controls
        scores.append(error)
    found = ran.json["metrics"]["expr_mse_unbiased_capped_norm"]["ceiling"]
    assert found == pytest.approx(np.mean(scores), rel=1e-8)


def test_the_predictions_controls_do_not_matter(here):
    first = run(here, "--no-baseline").json["metrics"]
    pred = screen(2)
    pred[pred.obs["target_gene"] != CONTROL].copy().write_h5ad(here.folder / "pred.h5ad")
    ran = run(here, "--no-baseline")
    assert "the real ones are used" in ran.err
    assert ran.json["metrics"] == first


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (logged, "scores raw counts"),
        (lambda c: put(c, 0.5), "scores raw counts"),
        (lambda c: put(c, 3.0001), "scores raw counts"),
        (lambda c: put(c, -1), "negative"),
        (lambda c: put(c, np.nan), "NaN"),
        (lambda c: put(c, 2e6), "1e6 is the limit"),
    ],
)
def test_values_that_are_not_counts_are_refused(here, spoil, said):
    spoil(screen(2)).write_h5ad(here.folder / "pred.h5ad")
    ran = run(here)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_labels_that_are_not_genes_are_refused(here):
    for name, seed in (("real", 1), ("pred", 2)):
        cells = screen(seed)
        labels = cells.obs["target_gene"].astype(str)
        cells.obs["target_gene"] = np.where(labels == CONTROL, CONTROL, labels + "-1")
        cells.write_h5ad(here.folder / f"{name}.h5ad")
    ran = run(here)
    assert ran.code == 2
    assert "named after a gene" in ran.err


def put(cells, value):
    cells.X.data[100] = value
    return cells


def test_a_context_is_scored_as_if_it_were_alone(here):
    """With any column, genes, controls, anchors and splits of a context do not depend on others."""
    alone, sides = {}, {"real": [], "pred": []}
    for number, line in enumerate(("K562", "A549", "H1")):
        for seed, name in ((10 * number + 1, "real"), (10 * number + 2, "pred")):
            cells = screen(seed, cells=40 + 8 * number, controls=90 + 9 * number)
            if name == "pred" and number:
                cells = cells[cells.obs["target_gene"] != CONTROL].copy()
            cells.obs_names = [f"{seed}-{i}" for i in range(cells.n_obs)]
            cells.write_h5ad(here.folder / f"{name}.h5ad")
            cells.obs["line"] = line
            sides[name].append(cells)
        ran = run(here)
        assert ran.code == 0, ran.err
        alone[line] = ran.json
    for name, parts in sides.items():
        both = ad.concat(parts)
        place = [int(name.split("-")[1]) for name in both.obs_names]
        among = np.argsort(place, kind="stable")  # the lines' cells lie among one another
        both[among].copy().write_h5ad(here.folder / f"{name}.h5ad")
    ran = run(here, "--context-column", "line", "-o", "out")
    assert ran.code == 0, ran.err
    assert set(ran.json["contexts"]) == set(alone)
    for line, one in alone.items():
        together = ran.json["contexts"][line]
        assert together["overall"] == pytest.approx(one["overall"], rel=1e-12)
        for name, parts in one["metrics"].items():
            assert together["metrics"][name] == pytest.approx(parts, rel=1e-12), (line, name)
    for name, parts in ran.json["metrics"].items():
        for part, value in parts.items():
            mean = np.mean([one["metrics"][name][part] for one in alone.values()])
            assert value == pytest.approx(mean, rel=1e-12)
    overall = np.mean([one["overall"] for one in alone.values()])
    assert ran.json["overall"] == pytest.approx(overall, rel=1e-12)
    table = pd.read_csv(here.folder / "out/results.csv")
    assert table["context"].value_counts().to_dict() == dict.fromkeys(alone, 4)
    assert (here.folder / "out/A549_real_de.parquet").exists()
