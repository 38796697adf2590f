"""`vcell train-graph` on planted tables: verdicts, refusals and resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from vcell_train_graph.held_out import HeldOutSets, Split
from vcell_train_graph.planted import planted

from tests.support import PATIENCE, clean_environment
from tests.train_graph.conftest import written
from vcell import library
from vcell.errors import UserError
from vcell.graph.gene_sets import read_gene_sets
from vcell.runs import Run

FEW = {"max_steps": 8, "validate_every": 4, "width": 16, "heads": 2, "layers": 1, "batch_size": 64}


def train(folder: Path, runs: Path, *graphs: str, **settings):
    if "resume" in settings:
        return library.command("train-graph", runs=runs, **settings)
    paths = [folder / f"{name}.tsv" for name in graphs]
    return library.command("train-graph", folder / "tau.tsv", graph=paths, runs=runs, **settings)


def test_five_folds_and_a_random_split_are_compared_with_rewired_graphs(small, tmp_path):
    told = train(
        small, tmp_path, "relation_0", "relation_1",
        model="graph-gp", control="rewired", folds=2, seeds=3,
    )  # fmt: skip
    assert set(told["splits"]) == {"query pairs never seen", "random"}
    unseen = told["splits"]["query pairs never seen"]
    assert unseen["sets"] == 560
    scores = unseen["held_out"]
    assert scores["graph-gp"]["r"] > scores["additive"]["r"] + 0.1
    assert scores["graph-gp"]["r"] > scores["graph-gp, rewired"]["r"] + 0.1
    assert unseen["control"]["text"].startswith("the graph helped: +")
    assert unseen["control"]["low"] > 0
    assert abs(scores["query-mean"]["r"]) < 1e-9  # nothing is known of a pair never seen
    assert told["splits"]["random"]["held_out"]["query-mean"]["r"] > 0.1
    run = Run.open(told["run"])
    assert len(run.parts()) == 3 * 4
    found = HeldOutSets.of(run.parts()[0])  # the scores are those of the file
    r = np.corrcoef(found.predicted["graph-gp"], found.values)[0, 1]
    assert run.parts()[0].meta["summary"]["held_out"]["graph-gp"]["r"] == pytest.approx(r)
    assert (run.path / "folds.md").read_text().startswith("query pairs never seen: ")
    page = Path(library.command("report", run.path, format="md")["report"]).read_text()
    assert unseen["control"]["text"] in page
    assert "## Models on held-out sets" in page
    for wanted in ("Held-out sets, query pairs never seen", "Held-out sets, at random"):
        assert f"## {wanted}" in page
    assert "graph-gp: observed against predicted" in page
    before = (run.path / "folds.csv").read_bytes()
    again = train(small, tmp_path, resume=run.name)  # nothing is trained anew
    assert again["splits"] == told["splits"]
    assert (run.path / "folds.csv").read_bytes() == before


def test_two_seeds_give_no_verdict(small, tmp_path):
    told = train(
        small, tmp_path, "relation_0", model="graph-gp", control="rewired", folds=2, seeds=2
    )
    text = told["splits"]["query pairs never seen"]["control"]["text"]
    assert text.startswith("no verdict from 2 seeds (at least 3 are needed): +")


@pytest.mark.parametrize("model", ["transformer", "dango", "mlp"])
def test_networks_begin_as_their_prior_and_know_it_in_every_set(small, tmp_path, model):
    told = train(small, tmp_path, "relation_0", "relation_1", model=model, fold="1/3", **FEW)
    assert {"its prior", "additive", "query-mean", model} <= set(told["held_out"])
    run = Run.open(told["run"])
    evals = [e for e in run.events({"eval"}) if e["step"] == 0]
    assert evals[0]["explained"] == 0
    assert evals[0]["blend"] == 0


def test_a_gene_that_no_graph_has_is_predicted_and_listed(small, tmp_path):
    folder = tmp_path / "lacking"
    folder.mkdir()
    (folder / "tau.tsv").write_text((small / "tau.tsv").read_text())
    edges = (small / "relation_0.tsv").read_text().splitlines()
    (folder / "part.tsv").write_text(
        "\n".join(line for line in edges if "Y0003W" not in line) + "\n"
    )
    for model in ("graph-gp", "transformer"):
        told = train(folder, tmp_path / "runs", "part", model=model, fold="random", **FEW)
        assert "Y0003W" in told["absent"]
        found = HeldOutSets.of(Run.open(told["run"]))
        hit = (found.genes == "Y0003W").any(1)
        assert hit.any()
        assert np.isfinite(found.predicted[model][hit]).all()


def test_maps_of_pairs_hold_out_genes(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(30)]
    effect = rng.normal(size=30)
    values = effect[:, None] + effect + 0.5 * rng.normal(size=(30, 30))
    values = (values + values.T) / 2
    lines = ["\t" + "\t".join(names)]
    lines += [
        "\t".join([n, *(f"{x:.5f}" for x in row)]) for n, row in zip(names, values, strict=True)
    ]
    (tmp_path / "tau.tsv").write_text("\n".join(lines) + "\n")
    told = train(tmp_path, tmp_path / "runs", model="additive", folds=3)
    assert set(told["splits"]) == {"genes never seen", "random"}
    assert told["splits"]["random"]["held_out"]["additive"]["r"] > 0.8


def test_frames_are_taken_from_python(tmp_path):
    import pandas as pd

    import vcell

    made = planted(n_genes=30, n_queries=20, per_query=5, n_decoys=0, seed=0)
    names = np.array(made.graphs.genes)[made.members]
    frame = pd.DataFrame(names, columns=["gene_1", "gene_2", "gene_3"]).assign(tau=made.values)
    run = vcell.train_graph(frame, runs=tmp_path, model="additive", fold="random")
    assert run.meta["summary"]["held_out"]["additive"]["r"] > 0


def edges(*lines: str) -> str:
    return "\n".join(["gene_a\tgene_b\tscore", *lines]) + "\n"


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (edges("A\tB\t1", "B\tC\t2"), "no gene in common"),
        (edges("9606.ENSP1\t9606.ENSP2\t1", "9606.ENSP2\t9606.ENSP3\t1"), "no gene in common"),
        (edges("Y0001W\tY0002W\tmuch", "Y0002W\tY0003W\tlittle"), "not a number"),
        (edges("Y0001W\tY0001W\t1"), ""),  # a graph of one node
        ("gene_a\tgene_a\tscore\nY0001W\tY0002W\t1\n", ""),  # a header that contradicts itself
    ],
    ids=["no gene in common", "another species", "weights", "one node", "header"],
)
def test_unsuitable_graphs_are_refused_in_one_sentence(small, tmp_path, graph, says):
    (small / "bad.tsv").write_text(graph)
    with pytest.raises(UserError) as refused:
        train(small, tmp_path / "runs", "bad", model="graph-gp", fold="random")
    assert says in refused.value.message
    assert "\n" not in refused.value.message
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("gene_1\tgene_2\tgene_3\ttau\nA\tA\tB\t1\n", "named twice"),
        ("gene_1\tgene_2\tgene_3\ttau\nA\tB\tC\tmuch\n", "not a number"),
        ("gene_1\tgene_2\tgene_3\ttau\nA\tB\tC\t1\n", "too few"),
        ("gene_1\tgene_2\tgene_3\nA\tB\tC\n", "no values"),
    ],
)
def test_unsuitable_tables_are_refused_in_one_sentence(tmp_path, table, says):
    (tmp_path / "tau.tsv").write_text(table)
    with pytest.raises(UserError, match=says):
        train(tmp_path, tmp_path / "runs", model="additive", fold="random")


def test_a_table_is_refused_before_a_fold_or_a_trial_is_announced(vcell, tmp_path):
    (tmp_path / "tau.tsv").write_text("gene_1\tgene_2\ttau\n")
    search = ("--sweep", "2", "--sweep-over", "width = [8, 16]")
    for words in ((), ("--folds", "3"), search):
        ran = vcell("train-graph", "tau.tsv", *words)
        assert ran.code == 2
        assert ran.err == "error: tau.tsv holds no gene sets, only a header\n"
        assert not list((tmp_path / "runs").glob("*"))


def test_a_control_that_removes_nothing_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="it uses no graphs"):
        train(small, tmp_path, "relation_0", model="mlp", control="rewired")
    with pytest.raises(UserError, match="it uses no features"):
        train(small, tmp_path, "relation_0", model="graph-gp", control="shuffled-features")


def test_features_help_only_if_they_beat_those_of_other_genes_and_none(small, tmp_path):
    rng = np.random.default_rng(0)
    genes = read_gene_sets(small / "tau.tsv").genes
    lines = [",".join([gene, *map(str, rng.normal(size=3))]) for gene in genes]
    (tmp_path / "random.csv").write_text("gene,a,b,c\n" + "\n".join(lines) + "\n")
    told = train(
        small, tmp_path / "runs", model="gp", features=[tmp_path / "random.csv"],
        control="shuffled-features", folds=2, seeds=1,
    )  # fmt: skip
    unseen = told["splits"]["query pairs never seen"]
    assert {"gp", "gp, shuffled-features", "without features"} <= unseen["held_out"].keys()
    # without graphs and features, gp knows the genes of a set only
    assert unseen["held_out"]["without features"]["r"] != unseen["held_out"]["gp"]["r"]


def test_what_beats_a_control_but_not_nothing_has_not_helped():
    rng = np.random.default_rng(0)
    better, worse = rng.normal(1, 0.1, 60), rng.normal(0, 0.1, 60)
    targets = [(f"G{i}", f"H{i}") for i in range(60)]
    for control, none, what in (
        ("rewired", "without graphs", "the graph helped"),
        ("shuffled-features", "without features", "the features helped"),
    ):
        for nothing, shown in ((worse, True), (better, False)):
            gains = {"m": better, f"m, {control}": worse, none: nothing}
            found = Split("random", {}, {}, gains, targets, draws=3, draw_sd=0.0).control("m")
            assert found is not None
            assert found[0].startswith(f"{what}: +" if shown else f"it is not shown that {what}: +")


def test_the_cost_is_estimated_before_training(small, tmp_path):
    told = train(small, tmp_path, "relation_0", estimate=True, **FEW)
    assert told["runs"] == 18  # five folds and a random split, three draws each
    assert told["step_seconds"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_like_an_uninterrupted_one(small, tmp_path):
    settings = {**FEW, "max_steps": 40, "checkpoint_every": 5, "fold": "1/3"}
    whole = train(small, tmp_path / "whole", "relation_0", **settings)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    command = [
        sys.executable, "-m", "vcell", "train-graph", str(small / "tau.tsv"), "--graph",
        str(small / "relation_0.tsv"), "--runs", str(tmp_path / "cut"), *flags,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=clean_environment() | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if list((tmp_path / "cut").glob("*/ckpt/step-00001*/checkpoint.json")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = library.command("train-graph", resume="latest", runs=tmp_path / "cut")
    assert again["held_out"]["transformer"]["r"] == pytest.approx(
        whole["held_out"]["transformer"]["r"], abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_train_what_one_does(small, tmp_path):
    settings = {**FEW, "fold": "1/3", "device": "cpu"}
    one = train(small, tmp_path / "one", "relation_0", **settings, dropout=0.0)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in {**settings, "dropout": 0.0}.items()]
    done = subprocess.run(
        [sys.executable, "-m", "vcell", "train-graph", str(small / "tau.tsv"), "--procs", "2",
         "--graph", str(small / "relation_0.tsv"), "--runs", str(tmp_path / "two"), "--json",
         *flags],
        env=clean_environment() | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert two["held_out"]["transformer"]["r"] == pytest.approx(
        one["held_out"]["transformer"]["r"], abs=1e-3
    )


@pytest.mark.slow
def test_where_no_graph_carries_a_signal_none_is_found(tmp_path):
    made = planted(n_genes=80, n_queries=60, per_query=8, n_decoys=1, seed=1, null=True)
    folder = written(tmp_path / "null", made)
    told = train(
        folder, tmp_path / "runs", "relation_0", "relation_1",
        model="graph-gp", control="rewired", folds=3,
    )  # fmt: skip
    control = told["splits"]["query pairs never seen"]["control"]
    assert not control["text"].startswith("the graph helped")
    assert control["low"] < 0.01
