"""`vcell pipeline bulk`: every stage runs once, despite interruptions; ablations and figures."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest

from tests.patients.conftest import SMALL
from tests.support import PATIENCE, clean_environment
from vcell.data import open_cells
from vcell.data.detect import sample_rows
from vcell.patients.simulate import write
from vcell.pipeline.manifest import Manifest, Stage

PROJECT = """\
[data]
cells = "cells.h5ad"
cell-type-column = "cell_type"

[pipeline]
pairs = "pairs.csv"
min-genes = 10
folds = 2
samples = 2
sample-cells = 30

[train-gmvae]
max-steps = 8
encoder = [16]
decoder = [16]

[train-bulk]
axes = [4]
steps = [8]
members = 1
inner-folds = 2
"""


@pytest.fixture(scope="module")
def project(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name in ("cells.h5ad", "pairs.csv"):
        shutil.copy(home / name, folder)
    (folder / "vcell.toml").write_text(PROJECT)
    return folder


@pytest.fixture
def inside(here, project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setenv("VCELL_CACHE", str(project / "cache"))
    return here


def test_stages_are_done_once_and_again_only_where_something_changed(inside, project):
    ran = inside("pipeline", "status", "--json")
    assert ran.code == 0, ran.err
    assert {one["state"] for one in ran.json["stages"]} == {"not done"}
    first = inside("pipeline", "bulk", "--json")
    assert first.code == 0, first.err
    folder = project / "pipeline"
    names = [one["stage"] for one in inside("pipeline", "status", "--json").json["stages"]]
    assert names == [
        "qc", "split", "gmvae-0", "gmvae-1", "pseudobulk", "classifier", "ablation", "figures",
    ]  # fmt: skip
    # each GMVAE saw the cells of its own training patients, and no others
    folds = json.loads((folder / "folds.json").read_text())["folds"]
    for k, one in enumerate(folds):
        seen = set(anndata.read_h5ad(folder / f"learn-{k}.h5ad").obs["patient"])
        assert seen.isdisjoint(one["test"])
        assert len(seen) + len(one["test"]) == 24
    run = folder / "runs" / first.json["stages"]["classifier"]["run"]
    assert json.loads((run / "design.json").read_text())["learners"] == ["fold-0", "fold-1"]

    again = inside("pipeline", "bulk", "--json")
    assert again.json["verdict"] == first.json["verdict"]
    assert again.err.count("done before") == len(names)

    (folder / "figures" / "roc.svg").unlink()
    state = {
        one["stage"]: one["state"] for one in inside("pipeline", "status", "--json").json["stages"]
    }
    assert state["figures"].endswith("roc.svg is gone")
    assert state["classifier"] == "done"
    more = inside("pipeline", "bulk", "--sample-cells", "31", "--no-ablate")
    assert more.code == 0, more.err
    assert "pseudobulk: draw bulk samples of each patient (changed: cells)" in more.err
    assert "gmvae-1: done before" in more.err
    assert "what it reads has changed" in more.err  # the classifier

    table = (run / "ablation.csv").read_text()
    for variant in ("without states", "bulk alone", "without the contrast term", "mean fusion"):
        assert variant in table
    svg = (folder / "figures" / "attention.svg").read_text()
    assert svg.startswith("<svg")
    assert "xmlns" in svg
    assert len((folder / "figures" / "attention.csv").read_text().splitlines()) == 25


def test_an_interrupted_training_is_not_continued_on_other_files(inside, project, tmp_path):
    """The folds done before would be of other pairs, states or samples than the rest."""
    for name in ("cells.h5ad", "pairs.csv"):
        shutil.copy(project / name, tmp_path)
    (tmp_path / "vcell.toml").write_text(PROJECT)
    words = ("--config", tmp_path / "vcell.toml", "pipeline", "bulk", "--no-states", "--no-ablate",
             "-o", tmp_path / "out", "--json")  # fmt: skip
    first = inside(*words)
    assert first.code == 0, first.err
    run = tmp_path / "out/runs" / first.json["stages"]["classifier"]["run"]

    def interrupt():
        (run / "scores.json").unlink(missing_ok=True)
        meta = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(meta | {"status": "interrupted"}))

    interrupt()
    again = inside(*words)
    assert f"continuing {run.name}" in again.err
    assert again.json["verdict"] == first.json["verdict"]
    interrupt()
    table = tmp_path / "pairs.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    other = inside(*words)
    assert other.code == 0, other.err
    assert f"continuing {run.name}" not in other.err
    assert other.json["stages"]["classifier"]["run"] != run.name

    assert not (tmp_path / "out/figures/ablation.csv").exists()
    drawn = inside(*[word for word in words if word != "--no-ablate"])
    assert drawn.code == 0, drawn.err
    assert (tmp_path / "out/figures/ablation.csv").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "holds nan, which is not a count"), (-1, "holds -1, which"), (0.5, "holds 0.5")],
)
def test_a_value_that_no_sample_saw_ends_in_the_first_stage(here, cells, tmp_path, value, words):
    large = anndata.concat([cells, cells], index_unique="-")
    large.X = large.X.toarray().astype("f4")
    cell = int(np.setdiff1d(np.arange(len(large)), sample_rows(len(large), None, 150))[3])
    large.X[cell, 7] = value
    large.write_h5ad(tmp_path / "large.h5ad")
    ran = here("pipeline", "bulk", "--cells", tmp_path / "large.h5ad", "--cell-type-column",
               "cell_type", "--min-genes", 5, "--no-states", "-o", tmp_path / "out")  # fmt: skip
    assert ran.code == 2
    assert f"cell {cell:,} {words}" in ran.err
    assert not (tmp_path / "out").exists()


def test_settings_of_a_later_stage_are_checked_before_the_first(inside, project, tmp_path):
    path = tmp_path / "vcell.toml"
    text = PROJECT.replace("pairs.csv", str(project / "pairs.csv"))
    path.write_text(text.replace("steps = [8]", "steps = 25"))
    ran = inside("--config", path, "pipeline", "bulk", "--cells", project / "cells.h5ad",
                 "-o", tmp_path / "out")  # fmt: skip
    assert ran.code == 2
    assert "steps" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_batch_that_is_the_cell_type_is_refused_by_the_first_stage(here, cells, tmp_path):
    cells = cells.copy()
    cells.obs["site"] = [f"site of {kind}" for kind in cells.obs["cell_type"]]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    ran = here("pipeline", "bulk", "--cells", tmp_path / "cells.h5ad", "--cell-type-column",
               "cell_type", "--batch-column", "site", "-o", tmp_path / "out")  # fmt: skip
    assert ran.code == 2
    assert "batch 'site' is the label 'cell_type' under another name" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_patient_without_counts_is_left_out(here, cells, tmp_path):
    cells = cells.copy()
    first = cells.obs["patient"].iloc[0]
    table = cells.X.toarray()
    table[(cells.obs["patient"] == first).to_numpy()] = 0
    cells.X = table
    cells.write_h5ad(tmp_path / "cells.h5ad")
    ran = here("pipeline", "bulk", "--cells", tmp_path / "cells.h5ad", "--cell-type-column",
               "cell_type", "--min-genes", 0, "--no-states", "--no-ablate", "-o",
               tmp_path / "out", "--folds", 2, "--samples", 0)  # fmt: skip
    assert ran.code == 0, ran.err
    assert f"1 patient: {first}" in ran.err
    with open_cells(tmp_path / "out" / "qc.h5ad") as left:
        assert first not in left.obs("patient").categories[left.obs("patient").counts() > 0]


def test_cells_are_drawn_before_and_after_a_gmvae(inside, project):
    run = next((project / "pipeline" / "runs").glob("*train-gmvae*"))
    ran = inside("figures", "latent", run, "-o", "latent", "--json")
    assert ran.code == 0, ran.err
    assert {"latent-before.svg", "latent-after.csv"} <= {
        f.split("/")[-1] for f in ran.json["files"]
    }
    refused = inside("figures", "latent", run, "-o", "latent")
    assert refused.code == 2
    assert "exists already" in refused.err


def test_figures_and_ablations_of_another_run_are_refused(inside, project):
    run = next((project / "pipeline" / "runs").glob("*train-gmvae*"))
    for words in (("ablate", run), ("figures", "roc", run)):
        ran = inside(*words)
        assert ran.code == 2
        assert "not of train-bulk" in ran.err


def test_an_ablation_replaces_its_own_files_only(inside, project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(next((project / "pipeline" / "runs").glob("*train-bulk*")), run)
    assert inside("ablate", run).code == 0, "the pipeline made one before"
    table, mine = run / "ablation.csv", tmp_path / "mine.csv"
    mine.write_text("my own\n")
    table.unlink()
    for put in (lambda: shutil.copy(mine, table), lambda: table.symlink_to(mine)):
        put()
        ran = inside("ablate", run)
        assert ran.code == 2
        assert "ablation.csv exists already and was not made by vcell" in ran.err
        assert mine.read_text() == table.read_text() == "my own\n"
        table.unlink()


def test_a_second_pipeline_and_damage_are_reported(inside, project, tmp_path):
    half = tmp_path / "pipeline.json.tmp-999999999"  # of a process that was killed
    half.write_text("{")
    with Manifest.open(tmp_path).locked():
        assert not half.exists()
        ran = inside("pipeline", "bulk", "-o", tmp_path)
    assert ran.code == 2
    assert "another pipeline" in ran.err
    (tmp_path / "pipeline.json").write_text("{")
    ran = inside("pipeline", "status", "-o", tmp_path)
    assert ran.code == 2
    assert "pipeline.json cannot be read" in ran.err


def test_the_state_is_shown_without_the_settings(typed, tmp_path):
    book = Manifest.open(tmp_path / "pipeline")
    with book.locked():
        book.run(Stage(name="qc", title="qc", inputs=[], settings={}, work=lambda: ({}, [])))
    ran = typed("pipeline", "status", "--json")
    assert ran.code == 0, ran.err
    assert [(one["stage"], one["state"]) for one in ran.json["stages"]] == [("qc", "done")]
    assert "no stage is checked for changes" in ran.err


def test_a_stage_is_done_by_digest_not_by_name_or_time(tmp_path):
    source, out, done = tmp_path / "in", tmp_path / "out", []

    def stage(**settings):
        def work():
            done.append(settings)
            out.write_text(source.read_text().upper())
            return {"n": len(done)}, [out]

        return Stage(name="s", title="shout", inputs=[source], settings=settings, work=work)

    source.write_text("a")
    for _ in range(2):
        assert Manifest.open(tmp_path).run(stage(k=1)) == {"n": 1}
    source.write_text("a")  # written again, the same
    assert Manifest.open(tmp_path).why(stage(k=1)) is None
    assert Manifest.open(tmp_path).why(stage(k=2)) == "changed: k"
    out.write_text("B")
    assert Manifest.open(tmp_path).why(stage(k=1)) == "out was changed"
    source.write_text("b")
    assert Manifest.open(tmp_path).why(stage(k=1)) == "what it reads has changed"
    Manifest.open(tmp_path).run(stage(k=1))
    assert out.read_text() == "B"


@pytest.mark.slow
def test_a_pipeline_killed_at_any_stage_continues_with_that_stage(tmp_path):
    """kill -9 as soon as a stage has begun, for each stage in turn; then to the end."""
    write(SMALL, tmp_path / "cells.h5ad", tmp_path / "pairs.csv")
    (tmp_path / "vcell.toml").write_text(PROJECT)
    words = [sys.executable, "-m", "vcell", "pipeline", "bulk", "--json"]
    environment = clean_environment() | {
        "VCELL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    begun: list[str] = []
    for name in ("qc", "gmvae-0", "gmvae-1", "classifier", "ablation"):
        with (tmp_path / f"{name}.err").open("w") as err:
            process = subprocess.Popen(
                words, cwd=tmp_path, env=environment, stderr=err, stdout=subprocess.DEVNULL
            )
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                said = (tmp_path / f"{name}.err").read_text()
                if f"\n{name}: " in said:
                    break
                assert process.poll() is None, said
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        known = Manifest.open(tmp_path / "pipeline").stages
        assert name not in known
        begun += [
            line
            for line in (tmp_path / f"{name}.err").read_text().splitlines()
            if "done before" in line
        ]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert begun.count("qc: done before") == 3  # whole since the second start, never run again
    assert "classifier: done before" in done.stderr
    assert json.loads(done.stdout)["verdict"]["text"]
