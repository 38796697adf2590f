"""The networks as a user trains them: starting at the prior, resumed, in two processes."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from vcell_train_vcc.network.task import CellTask

from tests.support import clean_environment
from vcell import models
from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.errors import UserError
from vcell.models import Screen
from vcell.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    *("--model", "transformer", "--device", "cpu", "--tokens", "24", "--set-size", "8"),
    *("--batch-size", "6", "--max-steps", "12", "--validate-every", "4", "--checkpoint-every", "2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    size = {"cells": 1000, "genes": 120, "perturbations": 20, "batches": 2, "umis": 1000.0}
    Simulator(**size, seed=1).write(path)
    return path


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCELL_CACHE", str(tmp_path_factory.getbasetemp() / "train-vcc-cache"))
        assert run(["train-vcc", str(cells), *SMALL, "--runs", str(folder)]) == 0
    return Run.open("latest", root=folder)


@pytest.fixture(scope="module")
def predictor(trained):
    screen = Screen.load(trained.path / models.SCREEN)
    return models.get("transformer").load(trained, screen)


def train(cells, folder, *words):
    assert run(["train-vcc", str(cells), *SMALL, "--runs", str(folder), *words]) == 0
    return Run.open("latest", root=folder)


def weights(this, step="latest"):
    return load_file(this.checkpoint(step).path / "model.safetensors")


def losses(this):
    return [(event["step"], event["loss"]) for event in this.events(["metric"])]


def test_it_starts_as_the_prior_and_never_validates_worse(trained):
    evals = trained.events(["eval"])
    assert [event["step"] for event in evals] == [0, 4, 8, 12]
    assert evals[0]["gain"] == evals[0]["mean_gain"] == 0
    assert {"pds", "mae", "des", "delta_correlation"} <= evals[0].keys()
    references = {event["name"]: event for event in trained.events(["reference"])}
    assert references.keys() == {"mean effect", "prior"}
    assert references["prior"]["pds"] == evals[0]["pds"]
    best = [event for event in evals if event["best"]][-1]
    assert best["gain"] >= 0
    assert trained.checkpoint("best").step == best["step"]
    assert {"gp", "transformer"} <= trained.meta["summary"]["held_out"].keys()


def test_its_shape_is_saved(trained):
    shape = json.loads((trained.path / "network.json").read_text())
    assert (shape["preset"], len(shape["tokens"])) == ("tiny", 24)


def test_the_preprocessing_of_the_cells_is_saved(trained):
    told = json.loads((trained.path / "preprocessing.json").read_text())
    screen = Screen.load(trained.path / models.SCREEN)
    assert told["values"] == "counts"
    assert told["target_sum"] == pytest.approx(screen.target_sum)
    assert (told["genes"], told["cells"], told["labels"]["control"]) == (120, 1000, "non-targeting")
    lines = (trained.path / "control_means.csv").read_text().split()
    assert lines[0] == f"gene,{screen.contexts[0]}"
    means = [float(line.split(",")[1]) for line in lines[1:]]
    assert means == pytest.approx(screen.control[0], rel=1e-6)
    assert trained.meta["store"]["key"]


def test_before_the_first_step_it_is_the_prior(cells, tmp_path):
    this = train(cells, tmp_path / "runs", "--max-steps", "1", "--lr", "0")
    screen = Screen.load(this.path / models.SCREEN)
    names = screen.perturbations[screen.rows(2)].tolist()
    prior = models.get("gp").load(this, screen).predict(names)
    found = models.get("transformer").load(this, screen).predict(names)
    assert np.array_equal(prior, found)


class PulledPlug(BaseException):
    """Ends a training in the middle of a step."""


PROGRESSIVE = ["--strategy", "progressive", "--phase-genes", "8,12,18,24", "--set-loss", "mmd"]


@pytest.mark.parametrize(
    ("words", "after"),
    [
        pytest.param(["--loss", "adaptive"], 5, id="transformer"),
        pytest.param(
            ["--model", "shared-encoder", "--loss", "adaptive"],
            9,
            id="shared-encoder",
            marks=pytest.mark.slow,
        ),
        pytest.param([], 5, id="combined", marks=pytest.mark.slow),
        pytest.param(PROGRESSIVE, 4, id="second of four phases", marks=pytest.mark.slow),
        pytest.param(PROGRESSIVE, 11, id="last of four phases"),
    ],
)
def test_an_interrupted_run_resumes_bit_for_bit(cells, tmp_path, monkeypatch, words, after):
    whole = train(cells, tmp_path / "whole", *words)
    calm, calls = CellTask.loss, itertools.count()

    def failing(self, model, batch):
        if next(calls) >= after:
            raise PulledPlug
        return calm(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CellTask, "loss", failing)
        with pytest.raises(PulledPlug):
            train(cells, tmp_path / "cut", *words)
    assert run(["train-vcc", "--resume", "latest", "--runs", str(tmp_path / "cut")]) == 0
    cut = Run.open("latest", root=tmp_path / "cut")
    assert losses(cut) == losses(whole)
    phases = [event["name"] for event in whole.events(["phase"])]
    assert len(phases) == (4 if words is PROGRESSIVE else 0)
    a, b = weights(whole), weights(cut)
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "shared-encoder"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(cells, tmp_path, kind):
    words = ["--model", kind, "--max-steps", "40"]
    whole = train(cells, tmp_path / "whole", *words)
    folder = tmp_path / "cut"
    command = ["train-vcc", cells, *SMALL, *words, "--runs", folder]
    alone = clean_environment() | {"OMP_NUM_THREADS": "1", "VCELL_CACHE": str(tmp_path / "cache")}
    for step in (5, 23):  # killed twice
        with subprocess.Popen(
            [sys.executable, "-m", "vcell", *map(str, command)],
            env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as going:  # fmt: skip
            while not any(last >= step for last, _ in steps_of(folder)):
                assert going.poll() is None
                time.sleep(0.01)
            going.kill()
            assert going.wait() == -signal.SIGKILL
        assert Run.open("latest", root=folder).status() == "crashed"
        command = ["train-vcc", "--resume", "latest", "--runs", folder]
    assert run(list(map(str, command))) == 0
    cut = Run.open("latest", root=folder)
    assert cut.meta["launches"] == 3
    assert losses(cut) == losses(whole)
    a, b = weights(whole), weights(cut)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def steps_of(folder):
    try:
        return losses(Run.open("latest", root=folder))
    except UserError:  # it is not there yet
        return []


@pytest.mark.parametrize(
    "kind", ["transformer", pytest.param("shared-encoder", marks=pytest.mark.slow)]
)
def test_several_contexts_are_learned_and_a_whole_one_can_be_held_out(tmp_path, capsys, kind):
    size = {"cells": 1600, "genes": 80, "perturbations": 12, "cell_types": 2, "umis": 1000.0}
    Simulator(**size, seed=1).write(tmp_path / "types.h5ad")
    words = ["--model", kind, "--max-steps", "4", "--test-share", "0", "--pseudo", "2"]
    both = train(tmp_path / "types.h5ad", tmp_path / "both", *words, "--test-share", "0.2")
    screen = Screen.load(both.path / models.SCREEN)
    assert len(screen.contexts) == 2
    assert {"context-mean", "gp", kind} <= both.meta["summary"]["held_out"].keys()
    names = screen.perturbations[screen.rows(2)][:1].tolist() * 2
    found = models.get(kind).load(both, screen).predict(names, screen.contexts.tolist())
    assert np.isfinite(found).all()
    held = str(screen.contexts[1])
    one = train(tmp_path / "types.h5ad", tmp_path / "one", *words, "--hold-out-context", held)
    screen = Screen.load(one.path / models.SCREEN)
    assert set(screen.context[screen.rows(2)]) == {1}
    assert set(screen.context[screen.part != 2]) == {0}
    assert np.isfinite(one.meta["summary"]["held_out"][kind]["pds"])


@pytest.mark.dist
@pytest.mark.parametrize(
    "kind",
    ["transformer", "shared-encoder", "transformer --loss adaptive"],
)
@pytest.mark.slow  # two ranks are one in tests/train/test_parallel.py and tests/gpu_free by default
def test_two_processes_learn_what_one_learns(cells, tmp_path, vcell, kind):
    words = [*SMALL, "--model", *kind.split(), "--dropout", "0"]
    one = train(cells, tmp_path / "one", *words)
    ran = vcell("train-vcc", cells, *words, "--procs", 2, "--runs", tmp_path / "two")
    assert ran.code == 0, ran.err
    two = Run.open("latest", root=tmp_path / "two")
    assert [loss for _, loss in losses(two)] == pytest.approx(
        [loss for _, loss in losses(one)], abs=1e-4
    )
    a, b = weights(one), weights(two)
    assert all(np.allclose(a[name], b[name], atol=1e-4) for name in a)


@pytest.mark.parametrize(
    "attention",
    ["sparse", *(pytest.param(a, marks=pytest.mark.slow) for a in ("chunked", "linear", "local"))],
)
def test_the_choice_of_attention_is_reported(cells, tmp_path, capsys, attention):
    train(cells, tmp_path / "runs", "--attention", attention, "--max-steps", "2")
    assert f"attention: {attention} (as requested)" in capsys.readouterr().err


def test_too_few_genes_for_a_phase_are_refused_before_training(cells, capsys):
    words = ["--strategy", "progressive", "--phase-genes", "10,400"]
    assert run(["train-vcc", str(cells), *SMALL, *words]) == 2
    assert "phase 2 wants 400 genes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model", "shared-encoder"],
        *(["--attention", a] for a in ("chunked", "sparse", "linear", "local")),
    ],
    ids=" ".join,
)
def test_an_estimate_needs_no_cells(capsys, words):
    assert run(["train-vcc", "--estimate", "--json", *SMALL, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 26
    assert found["estimate"]["parameters"] > 10_000


# -- what a trained network can be asked --------------------------------------------------------


def test_unseen_sets_of_genes_are_predicted(predictor):
    genes = predictor.tables.screen.genes
    one, other = predictor.predict([f"{genes[3]}+{genes[9]}", f"{genes[9]}+{genes[3]}"])
    assert np.isfinite(one).all()
    assert np.allclose(one, other, atol=1e-5)


def test_it_reports_its_uncertainty(predictor):
    names = predictor.tables.screen.perturbations[:3].tolist()
    drawn = predictor.samples(names, k=4)
    assert drawn.shape == (4, 3, len(predictor.tables.screen.genes))
    assert np.array_equal(drawn, predictor.samples(names, k=4))
    assert predictor.std(names).shape == drawn.shape[1:]
    assert (predictor.heads(names) > 0).all()
    assert np.array_equal(predictor.predict(names), predictor.predict(names))


def test_it_reports_its_attention(predictor):
    names = predictor.tables.screen.perturbations[:3].tolist()
    told = predictor.explain(names)
    assert told.genes.tolist() == predictor.tables.names
    assert told.importance.shape == (24,)
    assert told.attention.shape == (24, 24)
    assert (told.importance >= 0).all()
    assert (told.attention.sum(axis=1) <= 1.0001).all()


def test_a_damaged_checkpoint_is_one_line(trained, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(trained.path, broken)
    for file in broken.glob("ckpt/*/*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert run(["predict", str(broken)]) == 2
    assert "is damaged: its checksum does not match" in capsys.readouterr().err
    of_another = json.loads((trained.path / "network.json").read_text())
    of_another["tokens"][0] = "ELSEWHERE"
    (broken / "network.json").write_text(json.dumps(of_another))
    assert run(["predict", str(broken)]) == 2
    assert "network.json names 1 genes that screen.npz has not" in capsys.readouterr().err
    (broken / "network.json").write_text("{}")
    assert run(["predict", str(broken)]) == 2
    assert "network.json is missing or damaged" in capsys.readouterr().err
    assert not list(tmp_path.glob("prediction*"))
