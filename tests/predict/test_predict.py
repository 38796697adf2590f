"""`vcell predict`: cells of unmeasured perturbations, written to a file."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from vcell_predict.cells.pool import Pool
from vcell_predict.report import significance

from tests.support import PATIENCE, clean_environment
from vcell.cli import run
from vcell.data import open_cells
from vcell.data.log_cells import LogCells
from vcell.models import SCREEN, Screen, get
from vcell.runs import Run

CONTROL = "non-targeting"


@pytest.fixture
def trained(runs):
    """The run and its screen."""
    this = Run.open("latest", root=runs)
    return this, Screen.load(this.path / SCREEN)


@pytest.fixture
def real(cells, trained):
    """The real cells on the scale of the run."""
    with open_cells(cells) as source:
        yield LogCells(source, "counts", trained[1].target_sum)


def held_out(screen):
    return screen.perturbations[screen.part == 2].tolist()


def control_of(screen):
    return np.atleast_2d(screen.control)[0]


def cells_of(adata, name):
    return adata.X[(adata.obs["target_gene"] == name).to_numpy()]


def mean(cells):
    return np.asarray(cells.mean(axis=0)).ravel()


def test_the_mean_of_the_cells_is_the_predicted_one(predict, trained):
    this, screen = trained
    result = predict("--n-cells", 400, "--no-calibrate").json
    held = held_out(screen)
    assert result["perturbations"] == held
    effect = get("ridge").load(this, screen.settled()).predict(held)
    written = anndata.read_h5ad("p.h5ad")
    assert written.var_names.tolist() == screen.genes.tolist()
    assert written.X.dtype == np.float32
    for name, delta in zip(held, effect, strict=True):
        found = mean(cells_of(written, name)) - control_of(screen)
        assert np.corrcoef(found, delta)[0, 1] > 0.99
        # but for what makes every cell add up alike, the same for all genes
        assert np.abs(found - delta).mean() < 0.02


def test_predicted_cells_vary_and_detect_genes_like_real_ones(predict, real):
    predict()
    predicted = anndata.read_h5ad("p.h5ad")
    name = predicted.obs["target_gene"].to_numpy()
    labels = real.source.obs("target_gene").values
    mine = predicted.X[name != CONTROL]
    theirs = sp.vstack([block for _, block in real.blocks(np.flatnonzero(np.isin(labels, name)))])
    assert mine.data.min() > 0
    assert mine.nnz / mine.shape[0] == pytest.approx(theirs.nnz / theirs.shape[0], rel=0.05)
    spread = [x.toarray().std(axis=0).mean() for x in (mine, theirs)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_controls_are_copied_unchanged(predict, real):
    result = predict("--controls", 50).json
    predicted = anndata.read_h5ad("p.h5ad")
    control = predicted[predicted.obs["target_gene"] == CONTROL]
    assert control.n_obs == 50
    assert result["n_cells"] == predicted.n_obs
    rows = np.array([int(name.removeprefix("control-")) for name in control.obs_names])
    theirs = sp.vstack([block for _, block in real.blocks(rows)])
    assert np.allclose(control.X.toarray(), theirs.toarray(), atol=1e-5)
    batch = real.source.obs("batch").values[rows]
    assert control.obs["batch"].tolist() == batch.tolist()


def test_the_same_seed_gives_the_same_cells_whatever_else_is_predicted(predict, monkeypatch):
    one = ["--no-calibrate", "--n-cells", 30, "--perturbations"]
    assert predict(*one, "GENE00029").json["perturbations"] == ["GENE00029"]
    a = cells_of(anndata.read_h5ad("p.h5ad"), "GENE00029")
    predict(*one, "GENE00008,GENE00029", "--controls", 0)
    assert (a != cells_of(anndata.read_h5ad("p.h5ad"), "GENE00029")).nnz == 0
    # however the file is read and written
    monkeypatch.setattr("vcell.data.source.MAX_ROWS", 7)
    monkeypatch.setattr("vcell.data.source.MAX_NNZ", 1000)
    predict(*one, "GENE00029")
    assert (a != cells_of(anndata.read_h5ad("p.h5ad"), "GENE00029")).nnz == 0
    predict(*one, "GENE00029", "--seed", 1)
    assert (a != cells_of(anndata.read_h5ad("p.h5ad"), "GENE00029")).nnz > 0


def test_the_mean_mode_gives_every_cell_the_predicted_pseudobulk(predict, trained):
    this, screen = trained
    result = predict("--as", "mean", "--n-cells", 5, "--perturbations", "GENE00029").json
    assert result["cells"] == "mean"
    found = cells_of(anndata.read_h5ad("p.h5ad"), "GENE00029").toarray()
    delta = get("ridge").load(this, screen.settled()).predict(["GENE00029"])[0]
    assert np.allclose(found, np.maximum(control_of(screen) + delta, 0), atol=1e-6)


def test_the_earlier_spelling_of_as_still_works_with_a_warning(predict):
    ran = predict("--cells", "mean", "--n-cells", 5, "--perturbations", "GENE00029")
    assert ran.json["cells"] == "mean"
    assert "--cells mean is --as mean now" in ran.err


def test_counts_are_integers_with_the_depth_of_a_list(predict, tmp_path):
    (tmp_path / "pert_counts.csv").write_text(
        "target_gene,n_cells,median_umi_per_cell\nGENE00029,140,4500\nGENE00008,125,1500.5\n"
    )
    predict("--perturbations", "pert_counts.csv", "--as", "counts").json  # noqa: B018
    found = anndata.read_h5ad("p.h5ad")
    assert found.X.dtype == np.int32
    assert found.X.data.min() >= 1
    total = np.asarray(found.X.sum(axis=1)).ravel()
    for name, n, median in (("GENE00029", 140, 4500), ("GENE00008", 125, 1500)):
        own = total[(found.obs["target_gene"] == name).to_numpy()]
        assert len(own) == n
        assert np.median(own) == pytest.approx(median, rel=0.02)


def test_far_more_counts_than_the_controls_have_give_a_warning(predict, tmp_path):
    (tmp_path / "deep.csv").write_text(
        "target_gene,n_cells,median_umi_per_cell\nGENE00029,5,4500\nGENE00008,5,30000\n"
    )
    found = predict("--perturbations", "deep.csv", "--as", "counts", "--no-calibrate")
    assert found.code == 0
    assert "GENE00008 is to have a median of 30,000 counts a cell, 10 times" in found.err


def test_like_copies_perturbations_cells_batches_and_depths_of_a_real_file(predict, cells):
    measured = anndata.read_h5ad(cells)
    names = ["GENE00008", "GENE00029", CONTROL]
    measured = measured[measured.obs["target_gene"].isin(names)].copy()
    measured.X = measured.X * 2
    measured.obs["batch"] = measured.obs["batch"].astype(str)
    measured.write_h5ad("like.h5ad")
    result = predict("--like", "like.h5ad", "--as", "counts", "--controls", 0)
    assert sorted(result.json["perturbations"]) == names[:2]
    assert "2 perturbations" in result.err
    found = anndata.read_h5ad("p.h5ad")
    for name in names[:2]:
        mine, theirs = (x[x.obs["target_gene"] == name] for x in (found, measured))
        for column in ("batch",):
            assert sorted(mine.obs[column].astype(str)) == sorted(theirs.obs[column].astype(str))
        totals = [np.sort(np.asarray(x.X.sum(axis=1)).ravel()) for x in (mine, theirs)]
        assert len(totals[0]) == len(totals[1])
        assert np.median(np.abs(totals[0] / totals[1] - 1)) < 0.03


def test_unknown_perturbations_are_refused_or_reported(predict, trained, tmp_path):
    said = predict("--perturbations", "GENE00029,NOGENE")
    assert said.code == 2
    assert "nothing is known of 1 of 2 targets: NOGENE" in said.err
    assert not (tmp_path / "p.h5ad").exists()
    words = ["--unknown", "mean", "--n-cells", 300, "--no-calibrate"]
    result = predict("--perturbations", "GENE00029,NOGENE", *words)
    assert result.json["by_the_mean"] == ["NOGENE"]
    assert "the mean effect is predicted for 1 target " in result.err
    screen = trained[1]
    wanted = np.maximum(control_of(screen) + screen.delta[screen.part == 0].mean(axis=0), 0)
    written = anndata.read_h5ad("p.h5ad")
    assert np.abs(mean(cells_of(written, "NOGENE")) - wanted).max() < 0.03
    assert written.uns["vcell"]["by_the_mean"].tolist() == ["NOGENE"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--perturbations", "missing.csv"], "missing.csv"),
        (["--perturbations", "bad.csv"], "bad.csv:2: n_cells is 'many'"),
        (["--perturbations", "deep.csv"], "deep.csv:3: median_umi_per_cell is '-5'"),
        (["--perturbations", "empty.csv"], "empty.csv is empty"),
        (["--perturbations", CONTROL], "there is nothing to predict"),
        (["--model", "oracle"], "'oracle' is not a model"),
        (["--control", "nobody"], "no cell is labelled 'nobody'"),
        (["--perturbations", "GENE00029X"], "did you mean GENE00029"),
        (["--context", "moon"], "has no context 'moon'"),
        (["--like", "missing.h5ad"], "missing.h5ad"),
        (["--like", "bad.csv"], "bad.csv"),
        (["--like", "x.h5ad", "--perturbations", "A"], "give one of them"),
        (["--cells", "missing.h5ad"], "missing.h5ad"),
        (["--as", "meen"], "did you mean mean?"),
        (["--n-cells", "-5"], "must be at least 1, not -5"),
        (["--runs", "nowhere"], "there are no runs in nowhere"),
        (["--evaluate", "missing.h5ad"], "missing.h5ad"),
        (["--run-cell-eval"], "add --evaluate REAL"),
        (["--pack", "p.zip"], "must end in .vcc"),
        (["--pack", "no/p.vcc"], "no is not a folder"),
        (["-o", "no/where.h5ad"], "no is not a folder"),
        (["-o", "p.csv"], "p.csv"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_nothing(predict, tmp_path, words, said):
    (tmp_path / "bad.csv").write_text("target_gene,n_cells\nGENE00029,many\n")
    (tmp_path / "deep.csv").write_text(
        "target_gene,n_cells,median_umi_per_cell\nGENE00029,5,5\nGENE00008,5,-5\n"
    )
    (tmp_path / "empty.csv").write_text("\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    found = predict(*words)
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_cells_with_other_genes_and_runs_of_other_commands_are_refused(predict, cells):
    other = anndata.read_h5ad(cells)[:, ::-1].copy()
    other.write_h5ad("other.h5ad")
    for flag in ("--cells", "--control-cells"):
        found = predict(flag, "other.h5ad")
        assert found.code == 2
        assert "other genes than the run learnt" in found.err
    foreign = Run.create("foreign", "de")
    assert run(["predict", str(foreign.path)]) == 2


def test_a_damaged_run_is_refused_and_an_unfinished_one_reported(runs, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(next(runs.iterdir()), broken)
    (broken / SCREEN).write_bytes(b"garbage")
    assert run(["predict", str(broken)]) == 2
    assert "screen.npz is damaged" in capsys.readouterr().err
    (broken / SCREEN).unlink()
    assert run(["predict", str(broken)]) == 2
    assert "broken is done: it ended before its cells were measured" in capsys.readouterr().err
    early = tmp_path / "early"
    shutil.copytree(next(runs.iterdir()), early)
    Run.open(early).update(status="interrupted")
    assert run(["predict", str(early), "--n-cells", "5", "-o", "e.h5ad"]) == 0
    assert "early is interrupted: its best checkpoint so far is used" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_prediction_leaves_nothing_or_is_cleaned_up_later(runs, tmp_path, how):
    words = ["predict", "latest", "--runs", runs, "-o", "p.h5ad", "--n-cells", 200_000]
    with subprocess.Popen(
        [sys.executable, "-m", "vcell", *map(str, words), "--no-calibrate"],
        cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE,
    ) as going:  # fmt: skip
        while not list(tmp_path.glob("p.h5ad.tmp-*")):
            assert going.poll() is None, going.stderr.read()
            time.sleep(0.05)
        time.sleep(0.3)
        going.send_signal(how)
        # Python ends itself by SIGINT, which a shell calls 130 too, if the interrupt came while
        # it ran code from a string, as the making of a dataclass does
        ended = {-how} if how == signal.SIGKILL else {130, -signal.SIGINT, -how}
        assert going.wait(PATIENCE) in ended
    left = [path.name for path in tmp_path.iterdir()]
    if how == signal.SIGKILL:
        assert len(left) == 1
        assert left[0].startswith("p.h5ad.tmp-")
        assert run([*map(str, words[:6]), "--n-cells", "2", "-q", "--no-calibrate"]) == 0
        left = [path.name for path in tmp_path.iterdir() if ".tmp-" in path.name]
    assert left == []


def test_predicted_cells_have_the_total_of_the_training_cells(predict, trained):
    predict()
    written = anndata.read_h5ad("p.h5ad").X
    written.data = np.expm1(written.data.astype(np.float64))
    assert np.allclose(written.sum(axis=1), trained[1].target_sum, rtol=1e-4)


def test_significance_of_predicted_genes_is_that_of_a_normal_test():
    effect, spread = np.array([0.0, 0.5, -0.5, 0.3]), np.array([1.0, 1.0, 4.0, 0.0])
    found = significance(effect, spread, 50, 200)
    error = np.sqrt(spread[:3] * (1 / 50 + 1 / 200))
    p = 2 * scipy.stats.norm.sf(np.abs(effect[:3]) / error)
    assert found[:3] == pytest.approx(-np.log10(p), abs=1e-12)
    assert found[3] == 0.0, "a gene that does not vary says nothing"
    assert significance(np.array([1e6]), np.array([1e-6]), 1, 1)[0] == 300.0


def test_the_spread_of_a_pool_is_that_of_its_cells():
    values = sp.random_array((30, 7), density=0.4, rng=np.random.default_rng(0), format="csr")
    pool = Pool(values.astype(np.float32), np.arange(30), np.zeros(30, np.int64))
    assert pool.variance == pytest.approx(values.toarray().var(axis=0, ddof=1), abs=1e-7)
