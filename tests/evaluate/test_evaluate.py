"""`vcell evaluate` by the rules of 2025, as a user runs it."""

from __future__ import annotations

import json
import shutil
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from tests.evaluate import reference
from tests.evaluate.conftest import CONTROL, GENES, TARGETS, logged, screen

NAMES = ["overlap_at_N", "mae", "discrimination_score_l1"]


def scores(here, *words):
    ran = here("evaluate", "pred.h5ad", "real.h5ad", "-o", "out", "--overwrite", "--json", *words)
    assert ran.code == 0, ran.err
    return ran, pd.read_csv(here.folder / "out/results.csv").set_index("perturbation")


def save(cells, here, name: str) -> None:
    cells.write_h5ad(here.folder / name)


def refused(ran, *said: str) -> None:
    assert ran.code == 2, ran.err
    for words in said:
        assert words in ran.err
    assert "Traceback" not in ran.err


class TestScores:
    def test_they_equal_a_plain_implementation(self, here):
        ran, table = scores(here)
        real, pred = screen(1), screen(2)
        assert table.index.tolist() == TARGETS
        for name, truth in (
            ("overlap_at_N", reference.des(real, pred)),
            ("discrimination_score_l1", reference.pds(real, pred)),
        ):
            assert table[name].to_dict() == truth
        mae = reference.mae(real, pred)
        np.testing.assert_allclose(table["mae"], [mae[p] for p in TARGETS], rtol=1e-6)
        assert ran.json["metrics"]["mae"]["raw"] == pytest.approx(np.mean(list(mae.values())))

    def test_the_tests_behind_them_equal_scipys(self, here):
        scores(here)
        for side, cells in (("real", screen(1)), ("pred", screen(2))):
            table = pd.read_parquet(here.folder / f"out/{side}_de.parquet")
            for name, (u, p, fdr, lfc) in reference.tests(cells).items():
                mine = table[table["target"] == name]
                assert mine["feature"].tolist() == GENES
                assert (mine["statistic"].to_numpy() == u).all()
                np.testing.assert_allclose(mine["p_value"], p, rtol=1e-12)
                np.testing.assert_allclose(mine["fdr"], fdr, rtol=1e-12)
                np.testing.assert_allclose(mine["log2_fold_change"], lfc, rtol=2e-4, atol=2e-6)

    @pytest.mark.parametrize("kind", ["log1p", "counts"])
    def test_float64_cells_are_tested_to_their_last_bit(self, here, kind):
        """Values that float32 cannot tell apart are not ties, and means have all their digits."""
        sides = {}
        for name, seed in (("real", 1), ("pred", 2)):
            cells = screen(seed)
            x = cells.X.toarray().astype(np.float64)
            totals = x.sum(axis=1)
            scaled = np.log1p(x / (totals / np.median(totals))[:, None])
            if kind == "log1p":
                nearly = scaled * (1 + 1e-9 * np.random.default_rng(seed).random(x.shape))
                x = scaled = np.where(x == 1, nearly, np.round(scaled, 1))
                assert len(np.unique(x)) > len(np.unique(x.astype(np.float32)))
            cells.X = x
            save(cells, here, f"{name}.h5ad")
            sides[name] = scaled, cells.obs["target_gene"].to_numpy(str)
        _, table = scores(here)
        means = {}
        for side, (x, labels) in sides.items():
            means[side] = {name: x[labels == name].mean(axis=0) for name in [*TARGETS, CONTROL]}
            found = pd.read_parquet(here.folder / f"out/{side}_de.parquet").set_index("target")
            for name in TARGETS:
                mine = found.loc[name]
                test = stats.mannwhitneyu(x[labels == name], x[labels == CONTROL])
                assert (mine["statistic"].to_numpy() == test.statistic).all()
                np.testing.assert_allclose(mine["p_value"], test.pvalue, rtol=1e-12)
                with np.errstate(divide="ignore"):
                    change = np.log2(np.expm1(means[side][name]) / np.expm1(means[side][CONTROL]))
                np.testing.assert_allclose(mine["log2_fold_change"], change, rtol=1e-9, atol=1e-12)
        for name in TARGETS:
            error = np.abs(means["real"][name] - means["pred"][name]).mean()
            assert table.loc[name, "mae"] == pytest.approx(error, rel=1e-12)

    def test_the_true_cells_score_perfectly(self, here):
        shutil.copy(here.folder / "real.h5ad", here.folder / "pred.h5ad")
        ran, table = scores(here)
        assert (table["overlap_at_N"] == 1).all()
        assert (table["mae"] == 0).all()
        assert (table["discrimination_score_l1"] == 1).all()
        assert ran.json["overall"] == 1

    def test_the_baseline_scales_to_nothing(self, here):
        """The cell-mean prediction, written out cell by cell, scores 0 against itself."""
        real = screen(1)
        x = reference.normalised(real)
        labels = real.obs["target_gene"].astype(str).to_numpy()
        mean = np.mean(list(reference.means(real).values()), axis=0).astype(np.float32)
        fake = ad.AnnData(np.where((labels == CONTROL)[:, None], x, mean), real.obs, real.var)
        save(fake, here, "pred.h5ad")
        ran, table = scores(here)
        for name in NAMES:
            metric = ran.json["metrics"][name]
            assert metric["raw"] == pytest.approx(metric["baseline"], rel=1e-6)
            assert metric["scaled"] == pytest.approx(0, abs=1e-6)
        assert table["discrimination_score_l1"].nunique() > 1  # effects differ: real ranks

    def test_a_constant_prediction_ties_and_gets_the_middle(self, here):
        pred = logged(screen(2))
        means = np.asarray(pred.X.mean(axis=0)).ravel()
        pred.X = sp.csr_matrix(np.repeat(means[None].astype(np.float32), pred.n_obs, axis=0))
        save(pred, here, "pred.h5ad")
        save(logged(screen(1)), here, "real.h5ad")
        ran, table = scores(here)
        facts = ran.json["detected"]["all cells"]
        assert facts["significant_genes"]["prediction"] == 0
        assert (table["overlap_at_N"] == 0).all()
        assert np.mean(table["discrimination_score_l1"]) < 1
        assert "are taken for log1p" in ran.err

    def test_the_official_rules_clip_and_adjust_over_everything(self, here):
        scores(here)
        now = pd.read_parquet(here.folder / "out/real_de.parquet")
        scores(here, "--rules", "vcc2025-official")
        then = pd.read_parquet(here.folder / "out/real_de.parquet")
        assert (then["p_value"] == now["p_value"]).all()
        over_all = stats.false_discovery_control(now["p_value"])
        np.testing.assert_allclose(then["fdr"], over_all, rtol=1e-12)
        assert then["log2_fold_change"].abs().max() <= np.log2(20)
        assert now["log2_fold_change"].abs().max() > np.log2(20)


class TestFormats:
    @pytest.mark.parametrize("kind", ["dense", "csc", "int", "float64", "zarr"])
    def test_every_way_of_storing_the_same_cells_scores_the_same(self, here, kind):
        _, expected = scores(here)
        pred = screen(2)
        change = {
            "dense": lambda x: x.toarray(),
            "csc": sp.csc_matrix,
            "int": lambda x: x.astype(np.int32),
            "float64": lambda x: x.astype(np.float64),
            "zarr": lambda x: x,
        }
        pred.X = change[kind](pred.X)
        (here.folder / "pred.h5ad").unlink()
        if kind == "zarr":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # anndata announces another default
                pred.write_zarr(here.folder / "pred.h5ad")
        else:
            save(pred, here, "pred.h5ad")
        _, table = scores(here)
        pd.testing.assert_frame_equal(table, expected, rtol=1e-6)

    def test_counts_and_log1p_of_the_same_scale_are_compared(self, here):
        save(logged(screen(1), 300), here, "real.h5ad")
        save(logged(screen(2), 300), here, "pred.h5ad")
        _, expected = scores(here)
        save(screen(2), here, "pred.h5ad")
        ran, table = scores(here)
        assert "scaled to the other side's total, 300" in ran.err
        pd.testing.assert_frame_equal(table, expected, rtol=1e-5)

    def test_genes_and_cells_in_another_order_score_the_same(self, here):
        _, expected = scores(here)
        pred = screen(2)[:, ::-1].copy()
        save(pred[np.random.default_rng(0).permutation(pred.n_obs)].copy(), here, "pred.h5ad")
        ran, table = scores(here)
        assert "aligned by name" in ran.err
        pd.testing.assert_frame_equal(table, expected, rtol=1e-6)

    def test_a_prediction_without_controls_borrows_the_real_ones(self, here):
        real, pred = logged(screen(1)), logged(screen(2))
        save(real, here, "real.h5ad")
        lone = pred[pred.obs["target_gene"] != CONTROL].copy()
        controls = real[real.obs["target_gene"] == CONTROL].copy()
        controls.obs_names = [f"real-{name}" for name in controls.obs_names]
        lent = ad.concat([lone, controls])
        save(lent, here, "pred.h5ad")
        _, expected = scores(here)
        save(lone, here, "pred.h5ad")
        ran, table = scores(here)
        assert "the real ones are used" in ran.err
        assert ran.json["detected"]["all cells"]["borrowed_controls"] is True
        pd.testing.assert_frame_equal(table, expected, rtol=1e-6)

    @pytest.mark.parametrize("lacking", ["pred", "real"])
    @pytest.mark.parametrize("many", [False, True], ids=["files", "folders"])
    def test_a_file_without_the_column_of_contexts_is_refused_first(self, here, lacking, many):
        """In folders too, where only the second file lacks it."""
        for name in ("pred", "real"):
            cells = screen(1)
            if many:
                (here.folder / name).mkdir()
                save(cells, here, f"{name}/B.h5ad")
            cells.obs["line"] = "K562"
            save(cells, here, f"{name}/A.h5ad" if many else f"{name}.h5ad")
            if many and name != lacking:
                save(cells, here, f"{name}/B.h5ad")
        if not many:
            save(screen(1), here, f"{lacking}.h5ad")
        sides = ("pred", "real") if many else ("pred.h5ad", "real.h5ad")
        ran = here("evaluate", *sides, "--context-column", "line")
        named = f"{lacking}/B.h5ad" if many else f"{lacking}.h5ad"
        assert ran.code == 2
        assert ran.err.startswith(f"error: {named}: obs has no column 'line'\n")

    def test_contexts_in_one_file_or_many_are_averaged(self, here):
        sides = {}
        for seed, name in ((1, "real"), (5, "real"), (2, "pred"), (6, "pred")):
            cells = screen(seed)
            cells.obs["context"] = "A" if seed < 3 else "B"
            cells.obs_names = [f"{seed}-{i}" for i in range(cells.n_obs)]
            sides.setdefault(name, []).append(cells)
        alone = []
        for i in range(2):
            for name, cells in sides.items():
                save(cells[i], here, f"{name}.h5ad")
            alone.append(scores(here)[0].json["metrics"])
        for name, cells in sides.items():
            save(ad.concat(cells), here, f"{name}.h5ad")
            (here.folder / name).mkdir()
            for label, one in zip("AB", cells, strict=True):
                save(one, here, f"{name}/{label}.h5ad")
        ran, table = scores(here)
        assert set(ran.json["contexts"]) == {"A", "B"}
        assert table["context"].tolist() == ["A"] * 4 + ["B"] * 4
        folders = here("evaluate", "pred", "real", "--json")
        assert folders.code == 0, folders.err
        for got in (ran.json, folders.json):
            for metric in NAMES:
                for part in ("raw", "baseline", "scaled"):
                    mean = np.mean([one[metric][part] for one in alone])
                    assert got["metrics"][metric][part] == pytest.approx(mean, rel=1e-12)


class TestRefusals:
    def test_unknown_perturbations_are_listed_with_suggestions(self, here):
        pred = screen(2)
        pred.obs["target_gene"] = pred.obs["target_gene"].replace("G040", "G04O")
        save(pred, here, "pred.h5ad")
        ran = here("evaluate", "pred.h5ad", "real.h5ad", "-o", "out")
        refused(
            ran, "missing from the prediction: G040", "not in the real cells: G04O", "misspelt?"
        )
        assert not (here.folder / "out").exists()
        ran, table = scores(here, "--only-shared")
        assert table.index.tolist() == ["G005", "G017", "G077"]
        assert any("G040" in note for note in ran.json["detected"]["all cells"]["notes"])

    def test_other_genes_are_listed(self, here):
        pred = screen(2)
        pred.var_names = ["X" if g == "G000" else g for g in GENES]
        save(pred, here, "pred.h5ad")
        refused(here("evaluate", "pred.h5ad", "real.h5ad"), "G000", "not in the real cells: X")
        assert scores(here, "--only-shared")[0].code == 0

    def test_another_normalisation_is_refused_with_the_remedy(self, here):
        save(logged(screen(1), 1e3), here, "real.h5ad")
        save(logged(screen(2), 1e4), here, "pred.h5ad")
        refused(
            here("evaluate", "pred.h5ad", "real.h5ad"),
            "normalised differently", "normalise both to the same total",
        )  # fmt: skip

    def test_no_controls_on_the_real_side(self, here):
        real = screen(1)
        save(real[real.obs["target_gene"] != CONTROL].copy(), here, "real.h5ad")
        refused(here("evaluate", "pred.h5ad", "real.h5ad"), "known to mean control")

    def test_a_missing_file(self, here):
        refused(
            here("evaluate", "prod.h5ad", "real.h5ad"), "prod.h5ad does not exist", "pred.h5ad?"
        )


class TestEdges:
    def test_groups_of_one_cell_and_genes_that_are_all_zero(self, here):
        for name, seed in (("real", 1), ("pred", 2)):
            cells = screen(seed)
            keep = (cells.obs["target_gene"] != "G017").to_numpy()
            keep[np.flatnonzero(~keep)[0]] = True
            cells = cells[keep].copy()
            x = cells.X.toarray()
            x[:, 3] = 0
            cells.X = sp.csr_matrix(x)
            save(cells, here, f"{name}.h5ad")
        ran, table = scores(here)
        assert np.isfinite(table.to_numpy()).all()
        tests = pd.read_parquet(here.folder / "out/real_de.parquet")
        silent = tests[tests["feature"] == "G003"]
        assert (silent["p_value"] == 1).all()
        assert (silent["log2_fold_change"] == 0).all()
        assert "1 to 40" in ran.json["detected"]["all cells"]["cells_per_perturbation"]["real"]

    def test_cells_without_a_label_are_left_out_and_counted(self, here):
        pred = screen(2)
        labels = pred.obs["target_gene"].astype(object)
        labels.iloc[:5] = None
        pred.obs["target_gene"] = pd.Categorical(labels)
        save(pred, here, "pred.h5ad")
        ran, _ = scores(here)
        assert "left out, without a perturbation: 5 cells" in ran.err

    def test_baselines_are_kept_and_found_again(self, here):
        first, _ = scores(here)
        assert "reused from" not in first.err
        again, _ = scores(here)
        assert "reused from an earlier run" in again.err
        assert again.json["metrics"] == first.json["metrics"]
        save(screen(7), here, "real.h5ad")
        other, _ = scores(here)
        assert "reused from" not in other.err

    def test_the_ceiling_is_half_against_half_at_full_depth(self, here):
        ran, _ = scores(here, "--ceiling")
        real = screen(1)
        labels = real.obs["target_gene"].astype(str).to_numpy()
        x = logged(real, float(np.median(np.asarray(real.X.sum(axis=1)))))
        rows = reference.halves(labels, np.random.default_rng(0))
        a, b = (x[half].copy() for half in rows)
        r = np.mean(list(reference.des(a, b).values()))
        metrics = ran.json["metrics"]
        assert metrics["overlap_at_N"]["ceiling"] == pytest.approx(2 * r / (1 + r))
        r = np.mean(list(reference.pds(a, b).values()))
        assert metrics["discrimination_score_l1"]["ceiling"] == pytest.approx(2 * r / (1 + r))
        assert metrics["mae"]["ceiling"] is None

    def test_a_damaged_cache_entry_is_rebuilt(self, here):
        first, _ = scores(here)
        (entry,) = (here.folder.parent / f"{here.folder.name}-cache").rglob("*.json")
        entry.write_text("{")
        again, _ = scores(here)
        assert again.json["metrics"] == first.json["metrics"]


def test_the_folder_holds_what_the_documentation_says(here):
    scores(here)
    out = here.folder / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "agg_results.csv", "index.html", "pred_de.parquet", "real_de.parquet", "results.csv",
        "results.parquet", "score.json",
    ]  # fmt: skip
    head = (out / "results.csv").read_text().splitlines()[0]
    assert head == "perturbation,overlap_at_N,mae,discrimination_score_l1"
    aggregate = pd.read_csv(out / "agg_results.csv", index_col="statistic")
    assert aggregate.index.tolist() == [
        "count", "null_count", "mean", "std", "min", "25%", "50%", "75%", "max",
    ]  # fmt: skip
    table = pd.read_csv(out / "results.csv")
    assert aggregate.loc["mean", "mae"] == pytest.approx(table["mae"].mean())
    assert list(pd.read_parquet(out / "real_de.parquet")) == [
        "target", "feature", "target_mean", "ref_mean", "target_membership", "ref_membership",
        "log2_fold_change", "percent_change", "p_value", "statistic", "fdr",
    ]  # fmt: skip
    score = json.loads((out / "score.json").read_text())
    assert score["rules"] == "vcc2025"
    assert {"vcell", "numpy", "scipy", "numba"} <= score["versions"].keys()
    page = (out / "index.html").read_text().replace("<wbr>", "")
    for words in ("discrimination_score_l1", "Nearest real effects", "G017"):
        assert words in page
    assert "http://" not in page


def test_as_a_process_of_its_own(vcell, here):
    ran = vcell("evaluate", "pred.h5ad", "real.h5ad", "--cache", "cache", cwd=here.folder)
    assert ran.code == 0, ran.err
    assert "raw counts" in ran.err
    assert "overall" in ran.out


def test_a_metric_whose_baseline_has_no_value_is_not_scaled_to_zero(here):
    """The baseline finds as many genes for every perturbation: no correlation is defined."""
    from vcell.data.simulate import SimulationDesign, Simulator

    few = SimulationDesign(cells=400, genes=200, perturbations=6)
    Simulator(few).write(here.folder / "few.h5ad")
    ran = here("evaluate", "few.h5ad", "few.h5ad", "--rules", "full", "-o", "out", "--json")
    assert ran.code == 0, ran.err
    found = ran.json["metrics"]["de_spearman_sig"]
    assert found["raw"] == pytest.approx(1)
    assert (found["baseline"], found["scaled"]) == (None, None)
    said = "no scaled score, as the baseline has no value: de_spearman_sig"
    page = (here.folder / "out" / "index.html").read_text()
    assert said in ran.err
    assert said in page  # which has no line for it
    assert page.count("de_spearman_sig") > 1
