"""Options of a prediction: several runs, uncertainty, explanations, scores, an archive."""

from __future__ import annotations

import csv
import json
import os
import stat
import sys

import anndata
import numpy as np
import pytest

from vcell.cli import run
from vcell.models import SCREEN, Screen, get
from vcell.runs import Run, find_runs


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def two(cells, tmp_path_factory):
    """Two runs on the same cells with the same held-out perturbations."""
    folder = tmp_path_factory.mktemp("two") / "runs"
    for model in ("ridge", "mean"):
        assert run(["train-vcc", str(cells), "--runs", str(folder), "--model", model]) == 0
    return [str(this.path) for this in find_runs(folder)[0]]


def test_several_runs_are_averaged_and_their_spread_is_reported(predict, two, tmp_path):
    result = predict("--no-calibrate", "--as", "mean", "--n-cells", 3, of=two).json
    assert sorted(result["models"]) == ["mean", "ridge"]
    screen = Screen.load(Run.open(two[0]).path / SCREEN)
    names = result["perturbations"]
    effects = np.stack(
        [get(kind).load(Run.open(path), screen.settled()).predict(names)
         for kind, path in zip(result["models"], two, strict=True)]
    )  # fmt: skip
    written = anndata.read_h5ad("p.h5ad")
    first = written.X[(written.obs["target_gene"] == names[0]).to_numpy()].toarray()[0]
    wanted = np.atleast_2d(screen.control)[0] + effects.mean(axis=0)[0]
    assert np.allclose(first, np.maximum(wanted, 0), atol=1e-5)
    spread = np.sqrt(effects.var(axis=0, ddof=1).mean(axis=1))
    table = lines(tmp_path / "p.uncertainty.csv")
    assert [row["perturbation"] for row in table] == names
    told = [float(row["uncertainty_between_runs"]) for row in table]
    assert np.allclose(told, spread, rtol=1e-4)
    assert np.allclose(written.uns["vcell"]["perturbations"]["uncertainty_between_runs"], spread)
    assert -1 <= result["uncertainty"]["between runs"] <= 1
    page = (tmp_path / "p.html").read_text()
    assert "Error against uncertainty: between runs" in page
    assert "<svg" in page


def test_runs_that_cannot_be_averaged_are_refused(predict, two, cells, tmp_path):
    said = predict(of=(two[0], two[0]))
    assert said.code == 2
    assert "named twice" in said.err
    anndata.read_h5ad(cells)[:, :200].copy().write_h5ad("other.h5ad")
    words = ["train-vcc", "other.h5ad", "--runs", "other", "--model", "mean"]
    assert run(words) == 0
    said = predict(of=(two[0], str(find_runs(tmp_path / "other")[0][0].path)))
    assert said.code == 2
    assert "learnt different genes (300 and 200" in said.err


def test_an_explanation_names_the_genes_and_the_measured_perturbations(predict, runs, tmp_path):
    result = predict("--explain", "why", "--no-calibrate", "--n-cells", 5).json
    assert result["files"]["explain"] == "why/index.html"
    genes = lines(tmp_path / "why" / "genes.csv")
    assert len(genes) == 300
    response = [float(row["response"]) for row in genes]
    assert response == sorted(response, reverse=True)
    measured = lines(tmp_path / "why" / "measured.csv")
    screen = Screen.load(Run.open("latest", root=runs).path / SCREEN)
    held = set(screen.perturbations[screen.part == 2].tolist())
    assert {row["perturbation"] for row in measured} == held
    assert not {row["measured"] for row in measured} & held
    # a ridge prediction is a sum of measured effects but for its penalty
    assert min(float(row["explained"]) for row in measured) > 0.5
    assert "Measured perturbations" in (tmp_path / "why" / "index.html").read_text()


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A program named cell-eval with the peer's output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "cell-eval"
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib, anndata\n"
        "words = dict(zip(sys.argv[2::2], sys.argv[3::2]))\n"
        "sides = [anndata.read_h5ad(words[k]).obs[words['--pert-col']] for k in ('-ap', '-ar')]\n"
        "assert set(sides[0]) == set(sides[1]) and words['--control-pert'] in set(sides[0])\n"
        "out = pathlib.Path(words['-o']); out.mkdir()\n"
        "(out / 'agg_results.csv').write_text('statistic,mae\\ncount,7\\nmean,0.125\\n')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_scores_are_shown_next_to_the_peers(predict, cells, peer):
    words = ["--evaluate", cells, "--run-cell-eval", "--n-cells", 40]
    result = predict(*words).json
    assert result["cell_eval"] == {"mae": 0.125}
    mine = result["evaluate"]["metrics"]
    assert 0 < mine["mae"]["raw"] < 0.2


def test_without_the_peer_one_line_says_so(predict, cells, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = predict("--evaluate", cells, "--run-cell-eval", "--n-cells", 40)
    assert "cell-eval is not installed here" in result.err
    assert "cell_eval" not in result.json
    assert result.json["evaluate"]["overall"] is not None


def test_errors_of_pack_are_reported_and_the_prediction_kept(predict, runs, tmp_path):
    said = predict("--pack", "p.vcc", "--n-cells", 5)
    assert said.code == 2
    assert "`vcell pack` refused" in said.err
    assert json.loads(said.out)["prediction"] == "p.h5ad"
    assert not (tmp_path / "p.vcc").exists()
    screen = Screen.load(Run.open("latest", root=runs).path / SCREEN)
    (tmp_path / "genes.csv").write_text("\n".join(screen.genes) + "\n")
    (tmp_path / "vcell.toml").write_text('[pack]\ngenes = "genes.csv"\n')
    assert predict("--pack", "p.vcc", "--n-cells", 5).json["pack"]
    assert (tmp_path / "p.vcc").stat().st_size > 1000
