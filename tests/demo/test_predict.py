"""`vcell predict`: real control cells, moved by the predicted effect, into a file."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from vcell_predict.moved import Pool

from vcell.cli import run
from vcell.data import open_cells
from vcell.data.log_cells import LogCells
from vcell.models import SCREEN, Screen, get
from vcell.runs import Run


@pytest.fixture
def real(cells, runs):
    """The real cells on the scale of the run."""
    screen = Screen.load(Run.open("latest", root=runs).path / SCREEN)
    with open_cells(cells) as source:
        yield LogCells(source, "counts", screen.target_sum)


@pytest.fixture
def predict(runs, capsys):
    """Run `vcell predict latest` on the trained run; returns the result, or the code and words."""

    def call(*words):
        capsys.readouterr()
        code = run(["predict", "latest", "--runs", str(runs), "-o", "p.h5ad", "--json", *words])
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else (code, said.err)

    return call


def test_the_mean_of_the_cells_is_the_predicted_one(predict, runs):
    result = predict("--n-cells", "400")
    this = Run.open("latest", root=runs)
    screen = Screen.load(this.path / SCREEN)
    held = screen.perturbations[screen.part == 2].tolist()
    assert result["perturbations"] == held
    effect = get("bilinear").load(this, screen).predict(held)
    cells = anndata.read_h5ad("p.h5ad")
    assert list(cells.var_names) == screen.genes.tolist()
    for name, delta in zip(held, effect, strict=True):
        own = cells.X[(cells.obs["target_gene"] == name).to_numpy()]
        wanted = np.maximum(screen.control + delta, 0)
        assert np.abs(np.asarray(own.mean(axis=0)).ravel() - wanted).max() < 0.02


def test_predicted_cells_spread_and_are_as_full_as_real_ones(predict, real):
    predict()
    predicted = anndata.read_h5ad("p.h5ad")
    name = predicted.obs["target_gene"].to_numpy()
    labels = real.source.obs("target_gene").values
    mine = predicted.X[name != "non-targeting"]
    theirs = sp.vstack([block for _, block in real.blocks(np.flatnonzero(np.isin(labels, name)))])
    assert mine.data.min() > 0
    assert mine.nnz / mine.shape[0] == pytest.approx(theirs.nnz / theirs.shape[0], rel=0.1)
    spread = [x.toarray().std(axis=0).mean() for x in (mine, theirs)]
    assert spread[0] == pytest.approx(spread[1], rel=0.15)


def test_controls_stand_beside_them_unchanged(predict, real):
    result = predict("--controls", "50")
    predicted = anndata.read_h5ad("p.h5ad")
    control = predicted[predicted.obs["target_gene"] == "non-targeting"]
    assert control.n_obs == 50
    assert result["n_cells"] == predicted.n_obs
    rows = np.array([int(name.removeprefix("control-")) for name in control.obs_names])
    theirs = sp.vstack([block for _, block in real.blocks(rows)])
    assert np.allclose(control.X.toarray(), theirs.toarray(), atol=1e-5)


def test_the_same_seed_gives_the_same_cells(predict):
    first = predict("--n-cells", "30", "--perturbations", "GENE00029")
    a = anndata.read_h5ad("p.h5ad").X
    assert first["perturbations"] == ["GENE00029"]
    predict("--n-cells", "30", "--perturbations", "GENE00029")
    assert (a != anndata.read_h5ad("p.h5ad").X).nnz == 0
    predict("--n-cells", "30", "--perturbations", "GENE00029", "--seed", "1")
    assert (a != anndata.read_h5ad("p.h5ad").X).nnz > 0


def test_a_list_like_the_challenges_says_how_many_cells(predict, tmp_path):
    (tmp_path / "pert_counts.csv").write_text(
        "target_gene,n_cells,median_umi_per_cell\nGENE00029,40,5000\nGENE00008,25,5000\n"
    )
    predict("--perturbations", "pert_counts.csv", "--controls", "0")
    cells = anndata.read_h5ad("p.h5ad")
    assert cells.obs["target_gene"].value_counts().to_dict() == {
        "GENE00029": 40,
        "GENE00008": 25,
        "non-targeting": 0,
    }


def test_what_nothing_is_known_of_is_refused_or_said(predict, runs, tmp_path):
    code, said = predict("--perturbations", "GENE00029,NOGENE")
    assert code == 2
    assert "nothing is known of 1 of 2 targets: NOGENE" in said
    assert not (tmp_path / "p.h5ad").exists()
    result = predict("--perturbations", "GENE00029,NOGENE", "--unknown", "mean", "--n-cells", "300")
    assert result["by_the_mean"] == ["NOGENE"]
    screen = Screen.load(Run.open("latest", root=runs).path / SCREEN)
    mean = screen.control + screen.delta[screen.part == 0].mean(axis=0)
    cells = anndata.read_h5ad("p.h5ad")
    found = cells.X[(cells.obs["target_gene"] == "NOGENE").to_numpy()].mean(axis=0)
    assert np.abs(np.asarray(found).ravel() - np.maximum(mean, 0)).max() < 0.03


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--perturbations", "missing.csv"], "missing.csv"),
        (["--perturbations", "bad.csv"], "bad.csv:2: n_cells is 'many'"),
        (["--model", "oracle"], "'oracle' is not a model"),
        (["--control", "nobody"], "no cell is labelled 'nobody'"),
        (["--perturbations", "GENE00029X"], "did you mean GENE00029"),
        (["-o", "no/where.h5ad"], "no is not a folder"),
        (["-o", "p.csv"], "p.csv"),
    ],
)
def test_wrong_words_are_refused_and_leave_nothing(predict, tmp_path, words, said):
    (tmp_path / "bad.csv").write_text("target_gene,n_cells\nGENE00029,many\n")
    code, error = predict(*words)
    assert code == 2
    assert said in error
    assert "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


def test_cells_with_other_genes_and_runs_of_other_commands_are_refused(predict, cells, runs):
    other = anndata.read_h5ad(cells)[:, ::-1].copy()
    other.write_h5ad("other.h5ad")
    code, said = predict("--cells", "other.h5ad")
    assert code == 2
    assert "other genes than the run learnt" in said
    foreign = Run.create("foreign", "de")
    assert run(["predict", str(foreign.path)]) == 2


def test_a_damaged_run_is_one_line_and_an_unfinished_one_is_said(predict, runs, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(next(runs.iterdir()), broken)
    (broken / SCREEN).write_bytes(b"garbage")
    assert run(["predict", str(broken)]) == 2
    assert "screen.npz is damaged" in capsys.readouterr().err
    early = tmp_path / "early"
    shutil.copytree(next(runs.iterdir()), early)
    Run.open(early).update(status="interrupted")
    assert run(["predict", str(early), "--n-cells", "5", "-o", "e.h5ad"]) == 0
    assert "early is interrupted: its best checkpoint so far is used" in capsys.readouterr().err


def test_moved_cells_have_the_wanted_mean_even_of_genes_that_rise_much():
    rng = np.random.default_rng(0)
    x = sp.random_array((500, 60), density=0.3, rng=rng, format="csr", dtype=np.float32)
    x.data += 0.5
    typical = np.asarray(x.sum(axis=0)).ravel() / np.maximum((x != 0).sum(axis=0), 1)
    now = np.asarray(x.mean(axis=0)).ravel()
    pool = Pool(x, np.arange(500), typical)
    wanted = now * rng.uniform(0, 3, 60) - 0.02
    for n in (200, 1200):
        chosen, moved = pool.move(n, wanted, rng)
        assert len(chosen) == n
        assert moved.data.min() >= 0
        found = np.asarray(moved.mean(axis=0)).ravel()
        assert np.abs(found - np.maximum(wanted, 0)).max() < 1.2 / n * typical.max()
