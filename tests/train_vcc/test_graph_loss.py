"""--graph-loss as a user gives it: logged, warned about, resumed, refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from safetensors.numpy import load_file
from vcell_train_vcc.network.task import CellTask

from vcell.cli import run
from vcell.data.simulate import Simulator
from vcell.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    *("--device", "cpu", "--tokens", "32", "--set-size", "8", "--batch-size", "6"),
    *("--max-steps", "12", "--validate-every", "4", "--checkpoint-every", "4"),
    *("--no-shipped-features", "--quiet"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=800, genes=100, perturbations=16, umis=1000.0, seed=1).write(path)
    return path


@pytest.fixture
def graphs(tmp_path) -> list[str]:
    rng = np.random.default_rng(0)
    words = []
    for name, size in (("few.tsv", 150), ("many.tsv", 600)):
        pairs = rng.integers(1, 101, (size, 2))
        lines = (f"GENE{i:05}\tGENE{j:05}\n" for i, j in pairs)
        (tmp_path / name).write_text("gene_a\tgene_b\n" + "".join(lines))
        words += ["--graph", str(tmp_path / name)]
    return words


class PulledPlug(BaseException):
    """The process ends without cleaning up."""


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "transformer"],
        ["--model", "shared-encoder", "--loss", "adaptive"],
        pytest.param(
            ["--model", "transformer", "--strategy", "progressive", "--phase-genes", "8,16,24,32"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["transformer", "shared-encoder", "progressive"],
)
def test_it_is_logged_and_minimised_and_a_resumed_run_needs_no_file(
    cells, tmp_path, graphs, monkeypatch, words
):
    words = ["train-vcc", str(cells), *SMALL, *words, *graphs, "--graph-loss", "0.05"]
    assert run([*words, "--runs", "whole"]) == 0
    whole = Run.open("latest", root=tmp_path / "whole")
    told = [event["graphs"] for event in whole.events(["metric"])]
    assert len(told) == 12
    if "--strategy" not in words:
        assert 0 < told[-1] < told[0]
    evals = whole.events(["eval"])
    for event in evals[1:]:  # before the first step there is no batch
        for share in ("loss_share", "gradient_share"):
            assert 0 < event[f"{share}_few"] + event[f"{share}_many"] < 1

    calm, calls = CellTask.loss, itertools.count()

    def failing(self, model, batch):
        if next(calls) >= 9:
            raise PulledPlug
        return calm(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CellTask, "loss", failing)
        with pytest.raises(PulledPlug):
            run([*words, "--runs", "cut"])
    for path in tmp_path.glob("*.tsv"):
        path.unlink()
    assert run(["train-vcc", "--resume", "latest", "--runs", "cut", "--quiet"]) == 0
    cut = Run.open("latest", root=tmp_path / "cut")
    shown = ("step", "gain", "loss_share_few", "gradient_share_many")
    kept = [[[e.get(key) for key in shown] for e in one.events(["eval"])] for one in (whole, cut)]
    assert kept[1] == kept[0]
    a, b = (load_file(one.checkpoint("latest").path / "model.safetensors") for one in (whole, cut))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert run(["predict", cut.name, "--runs", "cut", "-o", "said.h5ad", "--n-cells", "2"]) == 0


def test_graphs_that_are_most_of_the_loss_are_warned_about_once(cells, graphs, capsys):
    words = ["--model", "transformer", *graphs, "--graph-loss", "50", "--max-steps", "8"]
    assert run(["train-vcc", str(cells), *SMALL, *words]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "use a smaller" in line]
    assert len(warnings) == 1
    assert "of the loss and" in warnings[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "transformer", "--graph-loss", "0.1"], "needs a network and --graph FILE"),
        (["--model", "gp", "GRAPHS", "--graph-loss", "0.1"], "needs a network and --graph FILE"),
        (["--model", "transformer", "GRAPHS", "--graph-loss", "-1"], "graph-loss"),
        (["--model", "transformer", "GRAPHS", "--graph-loss", "nan"], "graph-loss"),
        (
            ["--model", "transformer", "GRAPHS", "--graph-loss", "1", "--attention", "sparse"],
            "needs attention over all genes, and sparse is not",
        ),
    ],
    ids=["no graph", "gp", "negative", "nan", "sparse"],
)
def test_impossible_settings_are_refused_before_training(
    cells, tmp_path, graphs, capsys, words, said
):
    words = [part for word in words for part in (graphs if word == "GRAPHS" else [word])]
    assert run(["train-vcc", str(cells), *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.lower().count("error") == 1
    assert not (tmp_path / "runs").exists()
