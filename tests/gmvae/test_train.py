"""`vcell train-gmvae`: learns planted types, reports the baseline, and can be resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
from safetensors.numpy import load_file
from vcell_train_gmvae import TrainGmvae
from vcell_train_gmvae.study import Study
from vcell_train_gmvae.task import GmvaeTask
from vcell_train_gmvae.work import store_of

from tests.gmvae.conftest import GENES, planted, run_vcell
from tests.support import clean_environment
from vcell.gmvae.cells import ResidentCells
from vcell.runs import Run
from vcell.train.command import settings_of_run
from vcell.train.task import Place


def test_a_tenth_of_the_labels_suffices_and_the_baseline_is_reported(trained):
    found = trained["held_out"]
    assert set(found) == {
        "gmvae", "gmvae, latent means alone", "gmvae, head as trained",
        "logistic regression on 30 PCs", "logistic regression on 30 PCs of scaled genes",
    }  # fmt: skip
    assert found["gmvae"]["accuracy"] > 0.9
    assert found["gmvae"]["macro_f1"] > 0.85
    assert 0 <= found["gmvae"]["ece"] < 0.2
    assert trained["clusters"]["ari"] > 0.7
    assert trained["gained"]["low"] <= trained["gained"]["gain"] <= trained["gained"]["high"]


def test_the_scores_are_those_of_the_table_of_held_out_cells(trained):
    with (Path(trained["run"]) / "held_out.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "gmvae"]
    accuracy = np.mean([row["label"] == row["given"] for row in rows])
    assert accuracy == pytest.approx(trained["held_out"]["gmvae"]["accuracy"])
    assert len({row["cell"] for row in rows}) == len(rows) == pytest.approx(120, abs=10)


def test_held_out_labels_are_never_shown(trained):
    with np.load(Path(trained["run"]) / "cells.npz") as file:
        cells = dict(file)
    assert not (cells["held_out"] & (cells["shown"] >= 0)).any()
    shown = (cells["shown"] >= 0).sum() / (~cells["held_out"]).sum()
    assert shown == pytest.approx(0.1, abs=0.02)


def test_batches_hold_all_that_the_network_takes(trained):
    """It does without noise, dropout, and components to begin in where a batch lacks them."""
    run = Run.open(Path(trained["run"]))
    config, study = settings_of_run(TrainGmvae, run), Study.load(run)
    counts = planted(600, 1).X
    borders = counts.indptr.astype(np.int64)
    cells = ResidentCells(counts.indices, counts.data, borders, GENES, study.target)
    stream = GmvaeTask(config, study, cells).batches(Place())
    more = next(stream).more
    stream.close()
    assert set(more) == {"batch", "label", "noise", "kept"}
    assert (more["label"] >= 0).sum() < 40
    assert 0.6 < more["kept"].float().mean() < 0.8


def test_every_validation_reports_accuracy_and_macro_f1(trained):
    lines = (Path(trained["run"]) / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    told = [event for event in events if event["kind"] == "eval"]
    assert len(told) >= 3
    assert all({"accuracy", "macro_f1", "ari", "nelbo"} <= event.keys() for event in told)
    assert told[-1]["nelbo"] < told[0]["nelbo"]


def test_the_page_loads_nothing(trained):
    page = (Path(trained["run"]) / "index.html").read_text()
    assert "Confusion" in page
    assert "Principal components" in page
    assert 'src="http' not in page


@pytest.mark.parametrize(
    "likelihood",
    ["zinb", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("poisson", "mse"))],
)
def test_other_likelihoods_learn_too(vcell, cells, likelihood):
    done = vcell("train-gmvae", cells, "--labels", "kind", "--likelihood", likelihood,
                 "--max-steps", 60, "--batch-column", "batch", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["held_out"]["gmvae"]["accuracy"] > 0.8


def test_without_labels_the_components_find_the_types(vcell, cells):
    done = vcell("train-gmvae", cells, "--labels", "kind", "--label-fraction", 0,
                 "--max-steps", 300, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["held_out"] == {}
    assert told["clusters"]["ari"] > 0.5


def test_cells_without_a_label_are_not_a_class(vcell, home):
    data = planted(400, 3)
    data.obs["some"] = data.obs["kind"].astype(object)
    data.obs.iloc[::3, data.obs.columns.get_loc("some")] = "unknown"
    data.obs.iloc[1::9, data.obs.columns.get_loc("some")] = np.nan
    data.write_h5ad(home / "gaps.h5ad")
    done = vcell("train-gmvae", "gaps.h5ad", "--labels", "some", "--max-steps", 40, "--json")
    assert done.returncode == 0, done.stderr
    run = Path(json.loads(done.stdout)["run"])
    study = json.loads((home / run / "gmvae.json").read_text())
    assert study["labels"] == ["type-0", "type-1", "type-2", "type-3"]
    assert "without a label: " in done.stderr


def test_copies_of_held_out_cells_are_not_learned_from(vcell, home):
    """A folder holds a file and a part of it; labels drawn at random cannot be learned."""
    data = planted(400, 11)
    data.obs["drawn"] = [f"d{k}" for k in np.random.default_rng(0).integers(4, size=400)]
    (home / "twice").mkdir()
    data.write_h5ad(home / "twice" / "a.h5ad")
    data[200:].write_h5ad(home / "twice" / "b.h5ad")
    done = vcell("train-gmvae", home / "twice", "--labels", "drawn", "--max-steps", 20, "--json")
    assert done.returncode == 0, done.stderr
    assert "200 of 600 cells have the same counts as another" in done.stderr
    run = Run.open(home / json.loads(done.stdout)["run"])
    with np.load(run.path / "cells.npz") as file:
        held_out, label = file["held_out"], file["label"]
    with store_of(settings_of_run(TrainGmvae, run)) as store:
        row = store.obs["source_row"].to_numpy()
    original = np.where(row >= 400, row - 200, row)
    assert not set(original[held_out]) & set(original[~held_out])
    assert (label >= 0).sum() == len(set(original[label >= 0])) == 400
    assert len(_held_out(run.path)) == (held_out & (label >= 0)).sum()


def test_tables_name_cells_as_the_input_does(trained, cells):
    given, rows = anndata.read_h5ad(cells).obs, _held_out(Path(trained["run"]))
    for row in rows:
        assert given.index[int(row["row"])] == row["cell"]
        assert given["kind"].iloc[int(row["row"])] == row["label"]
    assert trained["judged"] == len(rows)


def test_labels_that_hardly_differ_and_those_not_scored_are_named(vcell, home):
    data = planted(300, 12)
    kind = data.obs["kind"].astype(object).to_numpy()
    kind[:12], kind[12:14], kind[14:20] = "Type-0", "rare", "UNKNOWN "
    data.obs["messy"] = kind
    data.write_h5ad(home / "messy.h5ad")
    done = vcell("train-gmvae", "messy.h5ad", "--labels", "messy", "--max-steps", 5, "--json")
    assert done.returncode == 0, done.stderr
    assert "differ in case or blanks only, and count as different ones: 'Type-0' and" in done.stderr
    assert "label with no cell held out, so it is not scored: rare" in done.stderr
    assert "without a label: 6 of 300 cells" in done.stderr


def test_every_comparison_has_an_interval(trained):
    others = [name for name in trained["held_out"] if name != "gmvae"]
    assert list(trained["over"]) == others
    ours = trained["held_out"]["gmvae"]["macro_f1"]
    for name, one in trained["over"].items():
        assert one["gain"] == pytest.approx(ours - trained["held_out"][name]["macro_f1"])
        assert one["low"] <= one["gain"] <= one["high"]
    assert trained["over"]["logistic regression on 30 PCs"] == trained["gained"]
    assert "gmvae over it" in (Path(trained["run"]) / "index.html").read_text()


@pytest.mark.parametrize(("labelled", "seed", "judged"), [(4, 0, 2), (4, 4, 0), (60, 0, 12)])
def test_few_held_out_cells_bring_no_verdict(vcell, home, labelled, seed, judged):
    data = planted(60, 13)
    kind = np.where(np.arange(60) % 2, "a", "b").astype(object)
    kind[labelled:] = "unknown"
    data.obs["few"] = kind
    data.write_h5ad(home / "few.h5ad")
    done = vcell("train-gmvae", "few.h5ad", "--labels", "few", "--max-steps", 5, "--seed", seed)
    assert done.returncode == 0, done.stderr
    assert f"too few for a verdict: {judged} held-out cells with a label" in done.stdout


def _held_out(run):
    with (run / "held_out.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["model"] == "gmvae"]


def _weights(run):
    return load_file(max((run / "ckpt").glob("step-*")) / "model.safetensors")


def test_an_interrupted_run_resumes_bit_for_bit(vcell, cells, home):
    line = ("train-gmvae", cells, "--labels", "kind", "--checkpoint-every", 10,
            "--validate-every", 10, "--json")  # fmt: skip
    whole = json.loads(vcell(*line, "--max-steps", 30).stdout)["run"]
    # the same schedule, but asked to stop: begun by one process, ended by another
    stopped = vcell(*line, "--max-steps", 30, "--patience", 0)
    again = json.loads(stopped.stdout)["run"]
    folder = home / again / "ckpt"
    for step in sorted(folder.glob("step-*"))[1:]:
        for file in sorted(step.rglob("*"), reverse=True):
            file.unlink()
        step.rmdir()
    first = sorted(folder.glob("step-*"))[0]
    (folder / "latest").write_text(first.name)
    done = vcell("train-gmvae", "--resume", Path(again).name, "--json")
    assert done.returncode == 0, done.stderr
    one, other = _weights(home / whole), _weights(home / again)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(vcell, cells, home):
    line = ("train-gmvae", cells, "--labels", "kind", "--checkpoint-every", 10,
            "--validate-every", 10, "--max-steps", 60, "--json")  # fmt: skip
    whole = json.loads(vcell(*line).stdout)["run"]
    before = set((home / "runs").iterdir())
    environment = clean_environment() | {"VCELL_CACHE": str(home / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "vcell", *map(str, line)], cwd=home, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    runs = home / "runs"
    while process.poll() is None and not [
        step for run in set(runs.iterdir()) - before for step in run.glob("ckpt/step-*")
    ]:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (killed,) = (
        run for run in set(runs.iterdir()) - before if run.is_dir() and not run.is_symlink()
    )
    done = vcell("train-gmvae", "--resume", killed.name, "--json")
    assert done.returncode == 0, done.stderr
    one, other = _weights(home / whole), _weights(killed)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_equal_one(cells, home):
    line = ("train-gmvae", cells, "--labels", "kind", "--max-steps", 12, "--device", "cpu",
            "--dropout", 0.3, "--json")  # fmt: skip
    one, two = (
        run_vcell(*line, *words, cwd=home, cache=home / "cache") for words in ((), ("--procs", 2))
    )
    assert two.returncode == 0, two.stderr
    found = [_weights(home / json.loads(done.stdout)["run"]) for done in (one, two)]
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-3, atol=2e-4)


def _refused(vcell, *words):
    done = vcell("train-gmvae", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_bad_input_is_one_sentence_before_training(vcell, home):
    data = planted(120, 5)
    data.obs["one"] = "T cell"
    data.obs["lone"] = ["rare", *data.obs["kind"].tolist()[1:]]
    data.obs["same"] = data.obs["kind"].map(lambda kind: kind.replace("type", "batch"))
    data.write_h5ad(home / "bad.h5ad")
    assert "has one label" in _refused(vcell, "bad.h5ad", "--labels", "one")
    lone = _refused(vcell, "bad.h5ad", "--labels", "lone")
    assert "'rare'" in lone
    assert "--min-cells 2" in lone
    same = _refused(vcell, "bad.h5ad", "--labels", "kind", "--batch-column", "same")
    assert "under another name" in same
    assert "kimd" in _refused(vcell, "bad.h5ad", "--labels", "kimd")
    logged = data.copy()
    logged.X = data.X.log1p()
    logged.write_h5ad(home / "logged.h5ad")
    assert "log1p" in _refused(vcell, "logged.h5ad", "--labels", "kind")
    broken = data.copy()
    broken.X.data[5] = np.nan
    broken.write_h5ad(home / "broken.h5ad")
    _refused(vcell, "broken.h5ad", "--labels", "kind")
    assert not [path for path in (home / "runs").glob("*") if "bad" in path.name]


@pytest.mark.slow
def test_rare_labels_can_be_ignored(vcell, home):
    data = planted(120, 5)
    data.obs["lone"] = ["rare", *data.obs["kind"].tolist()[1:]]
    data.write_h5ad(home / "lone.h5ad")
    done = vcell("train-gmvae", "lone.h5ad", "--labels", "lone", "--min-cells", 2,
                 "--max-steps", 5, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unlabelled" in done.stderr
