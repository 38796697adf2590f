"""The first hour of a new user: first commands, first errors, and the messages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.support import clean_environment
from vcell.runs import Run


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Common kinds of files: cell types, numeric labels, no controls, NaN."""
    folder = tmp_path_factory.mktemp("files")
    counts = np.random.default_rng(0).poisson(1, (120, 30)).astype(np.float32)
    counts[:40, 0] += 5
    counts[40:80, 1] += 5
    cells = anndata.AnnData(sp.csr_matrix(counts))
    cells.var_names = [f"G{i}" for i in range(30)]

    def save(name: str, **obs: list[object]) -> None:
        one = cells.copy()
        for column, values in obs.items():
            one.obs[column] = np.repeat(np.array(values), 40)
        one.write_h5ad(folder / name)

    save("types.h5ad", cell_type=["T", "B", "NK"])
    save("numbers.h5ad", perturbation=[0, 1, 2])
    save("no-control.h5ad", perturbation=["A", "B", "C"])
    save("screen.h5ad", perturbation=["control", "G2", "G3"])
    save("two.h5ad", perturbation=["control", "control", "G3"])
    linear = cells.copy()
    linear.X = sp.csr_matrix(linear.X / linear.X.sum(axis=1) * 10)
    linear.obs["perturbation"] = np.repeat(["control", "G2", "G3"], 40)
    linear.write_h5ad(folder / "linear.h5ad")
    cells.X.data[:5] = np.nan
    save("nan.h5ad", perturbation=["control", "G2", "G3"])
    return folder


@pytest.mark.parametrize("words", [(), ("runs",), ("config",), ("plugins",)])
def test_a_bare_command_shows_its_help_or_list(vcell, words):
    ran = vcell(*words)
    assert ran.code == 0
    assert ran.out
    assert ran.err == ""


def test_the_projects_cells_are_not_a_number_of_cells(vcell, project):
    ran = vcell("simulate", "new.h5ad", "--genes", 60, "--perturbations", 2, cwd=project)
    assert ran.code == 0, ran.err
    assert vcell("config", "check", cwd=project).code == 0
    assert vcell("demo", "--n-cells", 10, "-o", "d", cwd=project).err.count("too few") == 1


def test_a_project_column_that_a_file_lacks_is_reported_and_ignored(vcell, project, files):
    shutil.copy(files / "screen.h5ad", project / "other.h5ad")
    ran = vcell("evaluate", "other.h5ad", "other.h5ad", "--no-ceiling", cwd=project)
    assert ran.code == 0, ran.err
    ran = vcell("de", "other.h5ad", "-o", "o.csv", cwd=project)
    assert ran.code == 0, ran.err
    assert (
        "no obs column 'batch', which [data] names as batch-column: continuing without it"
        in ran.err
    )
    ran = vcell("de", "other.h5ad", "-o", "p.csv", "--batch-column", "batch", cwd=project)
    assert ran.code == 2, "what is asked for by a flag must be there"


def test_options_are_offered_only_where_they_apply(vcell, project):
    assert "--cells" not in vcell("evaluate", "--help").out
    ran = vcell("de", "-o", "de.csv", cwd=project)
    assert ran.code == 0, ran.err
    assert pd.read_csv(project / "de.csv")["target"].nunique() == 20


def test_runs_are_found_where_the_project_puts_them(vcell, project):
    assert {row["run"] for row in vcell("runs", "list", "--json", cwd=project).json["runs"]} == {
        "first", "second",
    }  # fmt: skip
    assert vcell("runs", "show", "latest", cwd=project).code == 0
    assert vcell("runs", "list", "--runs", "elsewhere", cwd=project).out.startswith("no runs in")
    ran = vcell("predict", "first", "--n-cells", 5, "-o", "p.h5ad", cwd=project)
    assert ran.code == 0, ran.err


def test_markers_of_cell_types_need_no_control(vcell, files, tmp_path):
    words = ("--against", "rest", "--perturbation-column", "cell_type", "-o", "markers.csv")
    ran = vcell("de", files / "types.h5ad", *words)
    assert ran.code == 0, ran.err
    found = pd.read_csv(tmp_path / "markers.csv")
    assert sorted(found["target"].unique()) == ["B", "NK", "T"]
    best = found[found["log2_fold_change"] > 0].sort_values("p_value").groupby("target").first()
    assert best.loc[["B", "T"], "feature"].tolist() == ["G1", "G0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("de", "{}/numbers.h5ad", "-o", "o.csv"), "'perturbation' holds numbers, not names"),
        (("de", "{}/linear.h5ad", "-o", "o.csv"), "neither counts nor log1p"),
        (("select-genes", "{}/nan.h5ad", "--n-genes", 5), "`vcell inspect --full` counts them"),
        (("de", "{}/screen.h5ad", "-o", "q.xlsx"), "must end in .parquet or .csv"),
        (("prepare", "{}/screen.h5ad", "--genes", "missing.csv"), "missing.csv"),
    ],
)
def test_the_first_errors_are_one_sentence_each(vcell, files, words, said):
    ran = vcell(*(str(word).format(files) for word in words))
    assert ran.code == 2
    assert said in ran.err
    assert "before normalisation" not in ran.err


def test_a_file_without_controls_has_a_problem(vcell, files):
    found = vcell("inspect", files / "no-control.h5ad", "--json").json["problems"]
    assert any("no label that is known to mean control" in problem for problem in found)


def test_scoring_a_single_perturbation_gives_a_warning(vcell, files):
    ran = vcell("evaluate", files / "two.h5ad", files / "two.h5ad", "--only-shared")
    assert ran.code == 0, ran.err
    assert "only G3 is scored" in ran.err


def test_an_error_in_a_variable_names_the_variable(vcell, files):
    ran = vcell("train-vcc", files / "screen.h5ad", env={"VCELL_TRAIN_VCC_LR": "abc"})
    assert ran.code == 2
    assert "VCELL_TRAIN_VCC_LR" in ran.err
    assert "--lr" not in ran.err
    ran = vcell("--help", env={"VCELL_PLUGINS": "de,no-such"})
    assert "VCELL_PLUGINS names 'no-such'" in ran.err


def test_a_misspelt_variable_of_the_command_is_reported(typed, monkeypatch):
    monkeypatch.setenv("VCELL_TRAIN_VCC_LRR", "1")
    monkeypatch.setenv("VCELL_TRAIN_VCC_LR", "1")
    monkeypatch.setenv("VCELL_PREDICT_BULK_OUTPUT", "x.csv")
    said = typed("train-vcc", "missing.h5ad").err
    assert "VCELL_TRAIN_VCC_LRR sets nothing (did you mean VCELL_TRAIN_VCC_LR?)" in said
    assert said.count("sets nothing") == 1
    assert "sets nothing" not in typed("predict", "latest", "-o", "p.h5ad").err


@pytest.mark.parametrize(
    ("command", "cells", "said"),
    [
        (
            ("train-vcc", "--model", "ridge"),
            "one",
            "at least 2 perturbations",
        ),
        (("select-genes",), "none", "holds no cells"),
        (("select-genes",), "zeros", "were its values lost"),
        (("de", "-o", "de.csv"), "none", "holds no cells"),
        (("pipeline",), "", "Missing argument '{bulk|status}'. Choose from: bulk, status"),
    ],
)
def test_what_is_missing_is_named(typed, tmp_path, command, cells, said):
    names = [f"c{i}" for i in range(20)]
    obs = pd.DataFrame({"target_gene": np.repeat(["non-targeting", "G1"], 10)}, index=names)
    var = pd.DataFrame(index=["G1", "G2", "G3", "G4"])
    few = anndata.AnnData(np.ones((20, 4), np.float32), obs, var)
    chosen = {"one": few, "none": few[:0], "zeros": few, "": few}[cells].copy()
    if cells == "zeros":
        chosen.X = np.zeros_like(chosen.X)
    chosen.write_h5ad(tmp_path / "cells.h5ad")
    ran = typed(*command, *(["cells.h5ad"] if cells else []))
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_failures_are_json_too(vcell, files):
    ran = vcell("de", "missing.h5ad", "-o", "o.csv", "--json")
    assert ran.code == 2
    assert set(ran.json["error"]) == {"message", "hint", "exit_code"}
    assert "missing.h5ad" in ran.json["error"]["message"]
    assert vcell("de", "--no-such-flag", "--json").json["error"]["exit_code"] == 2


def test_a_finished_run_stays_done(vcell, project):
    run = project / "out" / "runs" / "first"
    before = Run.open(run).meta
    (project / "cells.h5ad").rename(project / "moved.h5ad")
    ran = vcell("train-vcc", "--resume", "first", cwd=project)
    assert ran.code in (0, 1, 2)
    assert "Traceback" not in ran.err
    after = Run.open(run)
    assert after.status() == "done"
    assert after.meta["summary"] == before["summary"]


def test_a_new_project_points_to_the_next_step(vcell, files, tmp_path):
    ran = vcell("init", "mine", "--cells", files / "screen.h5ad")
    assert ran.out.splitlines()[-1] == "next: cd mine, then vcell inspect"
    assert vcell("inspect", cwd=tmp_path / "mine").code == 0
    ran = vcell("init", "of mine")
    assert ran.out.splitlines()[-1] == "next: cd 'of mine', then vcell inspect FILE"


def test_progress_is_shown_in_a_pipe(project):
    words = ("predict", "first", "--n-cells", "20000", "--no-calibrate", "-o", "p.h5ad")
    at_once = "from vcell import console, __main__; console._SHOW_AFTER = 0; __main__.main()"
    ran = subprocess.run(
        [sys.executable, "-c", at_once, *words],
        cwd=project, env=clean_environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert b"predicting" in ran.stderr


def test_runs_list_their_held_out_scores_and_choices(vcell, project):
    shown = vcell("runs", "compare", "first", "second", cwd=project).out
    assert shown.index("held-out score") < shown.index("setting that differs")
    assert "PDS (discrimination; 1 is best)" in shown
    one = vcell("runs", "show", "first", cwd=project).out
    assert "settings at the default" in one
    assert "ridge" in one


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_report_of_several_runs_replaces_no_user_files(typed, project, form):
    name = {"html": "report.html", "md": "training_report.md", "json": "report.json"}[form]
    (project / name).write_text("mine")
    ran = typed("report", "first", "second", "--runs", "out/runs", "--format", form, cwd=project)
    assert ran.code == 2, ran.err
    assert (project / name).read_text() == "mine"
    assert f"{name} exists already and was not made by vcell" in ran.err
