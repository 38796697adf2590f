"""Graphs of genes in train-vcc: read once, and used as far as they improve predictions."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell import models
from vcell.cli import run
from vcell.data.simulate import Simulator, simulate
from vcell.graph import Relation, read
from vcell.graph.diffusion import embedding
from vcell.models import SCREEN, Screen
from vcell.models.scoring import scores
from vcell.runs import Run
from vcell.screen.graphs import graphs_of
from vcell.screen.split import TEST

pytestmark = pytest.mark.usefixtures("cache")

SIZE = {"cells": 1500, "genes": 300, "perturbations": 50, "umis": 2500.0}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(**SIZE, seed=1)


@pytest.fixture(scope="module")
def cells(simulator, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "cells.h5ad"
    simulator.write(path)
    return path


def true_edges(simulator: Simulator) -> list[tuple[str, str]]:
    """Pairs of genes with similar loadings on the programmes."""
    genes, loadings = simulator.truth.genes, simulator.truth.loadings.T
    unit = loadings / np.maximum(np.linalg.norm(loadings, axis=1, keepdims=True), 1e-12)
    pairs = np.argwhere(np.triu(unit @ unit.T > 0.95, 1))
    return [(str(genes[i]), str(genes[j])) for i, j in pairs]


def written(path: Path, edges: list[tuple[str, str]]) -> str:
    text = "gene_a\tgene_b\n" + "".join(f"{a}\t{b}\n" for a, b in edges)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_graphs_are_reported_saved_and_not_needed_again(cells, simulator, tmp_path, capsys):
    edges = true_edges(simulator)
    words = ["--graph", written(tmp_path / "true.tsv", edges)]
    words += ["--graph", written(tmp_path / "half.tsv.gz", edges[::2])]
    words += ["--no-expression-features", "--no-shipped-features"]
    assert run(["train-vcc", str(cells), "--model", "gp", *words]) == 0
    told = capsys.readouterr().err
    joined = {gene for pair in edges for gene in pair}
    targets = set(simulator.truth.perturbations.tolist())
    assert (
        f"graph true: it joins {len(joined & targets)} of 50 targets and {len(joined)} of 300"
        in told
    )
    assert "features: half knows" in told
    this = Run.open("latest")
    screen = Screen.load(this.path / SCREEN)
    assert screen.blocks.tolist() == ["true", "half"]
    kept = graphs_of(screen, screen.genes.tolist())
    names = kept.genes
    ends = {frozenset((names[i], names[j])) for i, j in kept["true"].edge_index().T}
    assert ends == {frozenset(pair) for pair in edges}
    for path in tmp_path.glob("*.tsv*"):
        path.unlink()
    asked = screen.perturbations[screen.part == TEST].tolist()
    said = models.get("gp").load(this, screen.settled()).predict(asked)
    assert np.isfinite(said).all()
    assert run(["predict", this.name, "-o", "said.h5ad", "--n-cells", "4"]) == 0


def test_genes_are_found_under_other_names_and_those_not_measured_are_walked_through(
    tmp_path, capsys
):
    adata = simulate(cells=500, genes=60, perturbations=8, seed=1)
    names = sorted(set(adata.obs["target_gene"].astype(str)) - {"non-targeting"})
    called = dict(zip(names, ("TP53", "MYC", "GATA1", "KLF1", "STAT1", "SRC", "MARCH8", "C10orf54"),
                      strict=True))  # fmt: skip
    adata.obs["target_gene"] = [called.get(str(n), str(n)) for n in adata.obs["target_gene"]]
    adata.write_h5ad("cells.h5ad")
    edges = [(a, b) for a in ("MARCHF8", "VSIR", "TP53", "MYC") for b in ("EGFR", "KRAS")]
    graph = written(tmp_path / "today.tsv", edges)
    assert run(["train-vcc", "cells.h5ad", "--model", "gp", "--graph", graph]) == 0
    told = capsys.readouterr().err
    assert "graph today: it joins 4 of 8 targets and 0 of 60 measured genes" in told
    screen = Screen.load(Run.open("latest").path / SCREEN)
    features = screen.features[:, screen.block_columns()["today"]]
    rows = [features[screen.feature_number(g)] for g in ("MARCH8", "MARCHF8", "C10orf54", "STAT1")]
    assert (rows[0] == rows[1]).all()
    # MARCHF8 and VSIR are joined by EGFR alone, which nobody measured; nothing is said of STAT1
    assert np.abs(rows[0]).max() > 1
    assert np.allclose(rows[0], rows[2], atol=0.3)
    assert not rows[3].any()


BAD = {
    "species": ("4932.YAL001C 4932.YAL002W 900\n4932.YAL002W 4932.YAL003W 800\n", "same species"),
    "weights": ("a,b,weight\nGENE00001,GENE00002,0.5\nGENE00001,GENE00003,nan\n", "not a number"),
    "below": ("a,b,weight\nGENE00001,GENE00002,0.5\nGENE00001,GENE00003,-1\n", "weights below 0"),
    "itself": ("GENE00001,GENE00001\n", "needs at least two genes"),
    "nothing": ("", "is empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_unsuitable_graph_is_refused(cells, tmp_path, capsys, kind):
    text, said = BAD[kind]
    (tmp_path / "bad.csv").write_text(text)
    assert run(["train-vcc", str(cells), "--model", "gp", "--graph", "bad.csv"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def plain(cells, tmp_path_factory) -> Screen:
    """A screen whose only features are expression."""
    folder = tmp_path_factory.mktemp("plain")
    words = ["--model", "mean", "--no-shipped-features", "--quiet", "--runs", str(folder)]
    assert run(["train-vcc", str(cells), *words]) == 0
    return Screen.load(Run.open("latest", root=folder).path / SCREEN)


def with_graph(screen: Screen, relation: Relation) -> Screen:
    genes, values = embedding(relation)
    table = np.zeros((len(screen.feature_genes), values.shape[1]), np.float32)
    row = screen.feature_row
    for i, value in zip(genes, values, strict=True):
        if (name := str(screen.genes[i])) in row:
            table[row[name]] = value
    return replace(
        screen,
        features=np.hstack([screen.features, table]),
        blocks=np.append(screen.blocks, "graph"),
        widths=np.append(screen.widths, values.shape[1]),
        graph_names=np.array(["graph"]),
    )


def test_an_uninformative_graph_changes_nothing(plain, simulator, tmp_path):
    """One graph joins two targets, the other has random edges."""
    names = plain.genes.tolist()
    alone = GaussianProcess(plain)
    asked = plain.perturbations[plain.part == TEST].tolist()
    targets = [names.index(name) for name in plain.perturbations[:2].tolist()]
    few, _, _ = Relation.from_edges("few", np.array(targets[:1]), np.array(targets[1:]), len(names))
    true = read([Path(written(tmp_path / "true.tsv", true_edges(simulator)))], names)
    for relation in (few, true["true"].rewired(1)[0]):
        found = GaussianProcess(with_graph(plain, relation))
        assert found.blocks["graph"] == 0
        assert np.abs(found.predict(asked) - alone.predict(asked)).max() < 1e-4


def test_a_graph_is_used_if_other_features_are_uninformative(plain, simulator, tmp_path):
    """Other features are noise: the true graph improves predictions, a rewired one is not used."""
    names = plain.genes.tolist()
    rng = np.random.default_rng(0)
    noise = replace(plain, features=rng.normal(size=plain.features.shape).astype(np.float32))
    true = read([Path(written(tmp_path / "true.tsv", true_edges(simulator)))], names)["true"]
    rows = np.flatnonzero(plain.part == TEST)
    asked, real = plain.perturbations[rows].tolist(), plain.delta[rows]
    found = {
        kind: GaussianProcess(with_graph(noise, relation))
        for kind, relation in (("true", true), ("rewired", true.rewired(0)[0]))
    }
    assert found["true"].blocks["graph"] > 0.5
    assert found["rewired"].blocks["graph"] < 0.1
    pds = {
        kind: scores(one.predict(asked), real, plain.targets(asked))["pds"]
        for kind, one in found.items()
    }
    assert pds["true"] > pds["rewired"] + 0.03
