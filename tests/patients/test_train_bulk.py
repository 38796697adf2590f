"""`vcell train-bulk`: finds planted signals, reports when logistic regression wins, resumes."""

from __future__ import annotations

import json
import os
import signal

import numpy as np

from tests.patients.conftest import QUICK
from vcell.console import Progress
from vcell.patients.final import FinalBulkModel


def _run(here, *words):
    ran = here("train-bulk", "cells.h5ad", "--json", *QUICK, *words)
    assert ran.code == 0, ran.err
    return ran.json, ran.err


def test_it_scores_patients_and_logistic_regression(here, home):
    told, said = _run(here, "--pairs", "pairs.csv", "--batch-column", "batch")
    assert set(told["models"]) == {
        "train-bulk", "logistic on proportions", "logistic on bulk PCs",
    }  # fmt: skip
    for one in told["models"].values():
        assert one["auc"]["low"] <= one["auc"]["value"] <= one["auc"]["high"]
        assert 0 <= one["ece"] <= 1
    assert told["models"]["train-bulk"]["auc"]["value"] > 0.6
    assert told["verdict"]["text"]
    assert "no run of train-gmvae is named" in said
    run = home / told["run"]
    rows = (run / "predictions.csv").read_text().splitlines()
    assert len(rows) == 25
    page = (run / "index.html").read_text()
    assert told["verdict"]["text"].split(":")[0] in page
    assert "<script src" not in page


def test_shuffled_outcomes_are_reported_and_seeds_are_reproducible(here, home):
    one, said = _run(here, "--shuffle-outcomes", "--seed", "3")
    assert "outcomes are shuffled" in said
    two, _ = _run(here, "--shuffle-outcomes", "--seed", "3")
    assert one["models"] == two["models"]


def test_an_interrupted_run_continues_after_its_last_fold(here, home):
    whole, _ = _run(here, "--seed", "1")
    run = home / whole["run"]
    kept = (run / "outer-0.json").read_text()
    for name in ("outer-1.json", "outer-2.json", "scores.json", "index.html"):
        (run / name).unlink()
    meta = json.loads((run / "run.json").read_text())
    meta["status"] = "interrupted"
    (run / "run.json").write_text(json.dumps(meta))
    before = (run / "outer-0.json").stat().st_mtime_ns
    ran = here("train-bulk", "--resume", run.name, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["models"] == whole["models"]
    assert (run / "outer-0.json").stat().st_mtime_ns == before
    assert (run / "outer-0.json").read_text() == kept


def test_an_ended_ablation_goes_on_after_its_last_fold(here, home, monkeypatch):
    run = home / _run(here, "--seed", "2")[0]["run"]

    def ended(folds, then):
        """Run it; after so many folds it is ended by SIGTERM."""
        advance, seen = Progress.advance, []

        def count(bar, *words, **options):
            advance(bar, *words, **options)
            seen.append(bar)
            if len(seen) == folds:
                os.kill(os.getpid(), signal.SIGTERM)

        before = {path: path.stat().st_mtime_ns for path in run.glob("ablation-*.json")}
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "advance", count)
            ran = here("ablate", run)
        assert ran.code == then, ran.err
        assert not list(run.rglob("*.tmp-*"))
        assert {path: path.stat().st_mtime_ns for path in before} == before
        return ran, set(run.glob("ablation-*.json"))

    ran, first = ended(3, 130)
    assert [line for line in ran.err.splitlines() if "error" in line] == [
        "error: interrupted by SIGTERM"
    ]
    assert len(first) == 3
    assert not (run / "ablation.csv").exists()
    _, every = ended(1_000, 0)
    assert every > first
    assert (run / "ablation.csv").is_file()


def test_a_disk_that_is_full_when_the_model_is_written_is_told(here, small_disk, monkeypatch):
    whole = FinalBulkModel.save

    def save(model, run):
        room = os.statvfs(small_disk)
        (small_disk / "others").write_bytes(b"\0" * room.f_bavail * room.f_frsize)
        whole(model, run)

    with monkeypatch.context() as patch:
        patch.setattr(FinalBulkModel, "save", save)
        ran = here("train-bulk", "cells.h5ad", *QUICK, "--runs", small_disk / "runs")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "no space is left on the disk" in ran.err.splitlines()[-2]
    (small_disk / "others").unlink()
    ran = here("train-bulk", "--resume", "latest", "--runs", small_disk / "runs")
    assert ran.code == 0, ran.err


def test_folds_of_a_file_are_used_and_checked(here, home):
    names = [f"P{i:03d}" for i in range(24)]
    file = home / "folds.json"
    file.write_text(json.dumps({"folds": [{"test": names[:12]}, {"test": names[12:]}]}))
    told, _ = _run(here, "--folds-file", "folds.json")
    design = json.loads((home / told["run"] / "design.json").read_text())
    np.testing.assert_array_equal(design["fold"], [0] * 12 + [1] * 12)
    file.write_text(json.dumps({"folds": [{"test": names[:12]}, {"test": names[13:]}]}))
    ran = here("train-bulk", "cells.h5ad", *QUICK, "--folds-file", "folds.json")
    assert ran.code == 2
    assert "'P012' is in no fold" in ran.err
    apart = [names[0::2], names[1::2]]  # ill or well only: no pair to compare in either
    four = [{"test": apart[i][j::2]} for i in (0, 1) for j in (0, 1)]
    file.write_text(json.dumps({"folds": four}))
    ran = here("train-bulk", "cells.h5ad", *QUICK, "--folds-file", "folds.json")
    assert ran.code == 2
    assert "no fold has a patient of outcome 'ill' and one of another" in ran.err
    file.write_text(json.dumps({"folds": [{"test": names[:12]}, {"test": names[12:]}, {}]}))
    ran = here("train-bulk", "cells.h5ad", *QUICK, "--folds-file", "folds.json")
    assert ran.code == 2
    assert "no patient of the cells is in fold 2" in ran.err


def test_states_of_a_run_that_saw_the_test_patients_are_refused(here, home):
    ran = here("train-gmvae", "cells.h5ad", "--labels", "cell_type", "--max-steps", "8",
               "--encoder", "16", "--decoder", "16", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    names = [f"P{i:03d}" for i in range(24)]
    folds = [{"test": part, "gmvae": ran.json["run"]} for part in (names[:12], names[12:])]
    (home / "seen.json").write_text(json.dumps({"folds": folds}))
    ran = here("train-bulk", "cells.h5ad", *QUICK, "--folds-file", "seen.json")
    assert ran.code == 2
    assert "fold 0 tests patient 'P000', of whom" in ran.err
