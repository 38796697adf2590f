"""`vcell graph-profile`: every strategy gives a model the same graph; figures are measured."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from vcell_graph_profile import GraphProfile, command, references, strategies
from vcell_graph_profile.batches import ProfileBatch
from vcell_graph_profile.measure import StrategyTimer
from vcell_graph_profile.nets import CsrLayer, GraphNet, alike, pair_sums, sums
from vcell_graph_profile.verdict import verdict

from vcell import cli, console
from vcell.errors import UserError
from vcell.graph import GeneGraphs, Relation, Rules

N, B = 60, 5


@pytest.fixture(scope="module")
def graphs():
    rng = np.random.default_rng(0)
    relations = [
        Relation.from_edges(name, *rng.integers(0, N - 3, (2, size)), N)[0]
        for name, size in (("a", 400), ("b", 150))
    ]
    return GeneGraphs(tuple(f"G{i}" for i in range(N)), tuple(relations), {})


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(1)
    found = np.stack([rng.choice(N - 3, 3, replace=False) for _ in range(B)])
    found[0, 1:] = N - 1, -1  # a pair among triples, with a gene that has no edge
    return found


def batch_of(name, graphs, sets, rules=None):
    rules = rules or Rules()
    room = strategies if name in strategies.NAMES else references
    strategy = room.make(name, graphs, rules)
    samples = [strategy.sample(one) for one in sets]
    return strategy, samples, strategy.collate(samples)


def predicted(strategy, graphs, batch):
    """Predictions, and the gradient of the embedding, from weights of one seed."""
    torch.manual_seed(0)
    net = GraphNet(graphs, 8, 2, strategy.net).double()
    found, _ = net(batch)
    found.square().sum().backward()
    return found.detach(), net.embedding.weight.grad


@pytest.mark.parametrize("name", ["incidence", "lazy-ref"])
def test_deleting_genes_is_the_same_in_every_strategy(graphs, sets, name):
    strategy, _, batch = batch_of("lazy", graphs, sets)
    wanted, slope = predicted(strategy, graphs, batch)
    strategy, samples, batch = batch_of(name, graphs, sets)
    found, other = predicted(strategy, graphs, batch)
    assert torch.allclose(found, wanted, atol=1e-10)
    assert torch.allclose(other, slope, atol=1e-10)
    ours = strategies.make("lazy", graphs, Rules()).sample(sets[1])
    if name == "lazy-ref":
        assert references.same(ours, samples[1], graphs)
        assert not references.same(ours, samples[2], graphs)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("rules", [Rules(), Rules(1, "both", "union", "deleted")])
def test_neighbourhoods_equal_those_of_both_references(graphs, sets, hops, rules):
    strategy, ours, batch = batch_of(f"khop{hops}", graphs, sets, rules)
    wanted, slope = predicted(strategy, graphs, batch)
    for kind in ("ref", "scipy"):
        strategy, theirs, other = batch_of(f"khop{hops}-{kind}", graphs, sets, rules)
        assert all(references.same(a, b, graphs) for a, b in zip(ours, theirs, strict=True))
        found, grad = predicted(strategy, graphs, other)
        assert torch.allclose(found, wanted, atol=1e-10)
        assert torch.allclose(grad, slope, atol=1e-10)
    if hops == 1:  # three hops reach everything from anywhere
        assert not references.same(ours[1], theirs[2], graphs)


def test_batches_hold_no_edge_out_of_range(graphs, sets):
    """The original added offsets to numbers of the whole graph, so that edges left the batch."""
    for name in ("khop2", "khop2-ref"):
        _, samples, batch = batch_of(name, graphs, sets)
        n = len(batch.nodes)
        assert n == sum(s.n_nodes for s in samples) == int(batch.sizes.sum())
        edges = batch.edges
        if name == "khop2":
            sample = torch.repeat_interleave(batch.sizes)
            first = (batch.sizes.cumsum(0) - batch.sizes)[sample].int()
            edges = [
                torch.stack(CsrLayer(edges[2 * r], edges[2 * r + 1], first).pairs()) for r in (0, 1)
            ]
        of = torch.repeat_interleave(batch.sizes)
        for relation, pairs in zip(graphs, edges, strict=True):
            assert int(pairs.max()) < n
            assert (of[pairs[0]] == of[pairs[1]]).all()  # no edge between samples
            stored = {tuple(e) for e in relation.edge_index().T.tolist()}
            assert {tuple(e) for e in batch.nodes[pairs].T.tolist()} <= stored


def test_sums_over_neighbours_and_their_gradient_are_those_of_a_matrix(graphs):
    relation = graphs.relations[0]
    csr = CsrLayer(
        torch.from_numpy(relation.indptr), torch.from_numpy(relation.indices),
        torch.zeros(N, dtype=torch.int32),
    )  # fmt: skip
    dense = torch.zeros(N, N, dtype=torch.float64)
    dense[relation.targets, relation.indices] = 1
    x = torch.randn(N, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(N, 6, dtype=torch.float64)
    for found in (sums(x, csr), pair_sums(x, *csr.pairs())):
        assert torch.allclose(found, dense @ x)
        (slope,) = torch.autograd.grad((found * weight).sum(), x)
        assert torch.allclose(slope, dense.T @ weight)


def test_a_lazy_payload_is_a_few_bytes_and_payloads_are_counted(graphs, sets):
    _, samples, batch = batch_of("lazy", graphs, sets)
    assert samples[0].nbytes == 6  # three genes of two bytes; a kilobyte is allowed
    assert batch.genes.tolist() == sets.tolist()
    _, samples, _ = batch_of("lazy-ref", graphs, sets)
    assert samples[0].nbytes == 24 + graphs.n_edges * 17  # two int64 and a mask's byte an edge
    moved = batch.moved(torch.device("cpu"))
    assert isinstance(moved, ProfileBatch)
    assert moved.genes.data_ptr() != batch.genes.data_ptr()


def test_similar_latents_are_reported():
    assert alike(torch.ones(50, 4), 0) == pytest.approx(1)
    assert abs(alike(torch.randn(500, 64), 0)) < 0.05


def test_the_largest_batch_is_searched_by_running_batches(graphs, sets, monkeypatch):
    bench = StrategyTimer(
        strategies.make("dango", graphs, Rules()), None, sets, np.zeros(B, np.float32), "data",
        torch.device("cpu"),
    )  # fmt: skip
    tried = []

    def peak(size, seed):
        tried.append(size)
        return 1000 + 70 * size

    monkeypatch.setattr(bench, "_peak_of", peak)
    size, found = bench.largest(100_000, 60, 0)
    assert found
    assert 1000 + 70 * size <= 100_000 < 1000 + 70 * size * 17 / 16 + 70
    assert max(tried) < 3 * size  # none goes far beyond what there is room for
    assert bench.largest(1000, 60, 0) == (0, True)
    assert not bench.largest(10**12, 60, 0)[1]  # more may fit than the most that is tried


def edge_list(path, graphs, name):
    rows = [f"{graphs.genes[s]}\t{graphs.genes[t]}" for s, t in graphs[name].edge_index().T]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture
def files(tmp_path, graphs, sets):
    found = [edge_list(tmp_path / f"{name}.tsv", graphs, name) for name in graphs.names]
    rows = [[f"G{i}" for i in row if i >= 0] for row in sets[1:]]
    text = "gene_1\tgene_2\tgene_3\ttau\n" + "".join("\t".join(r) + "\t0.5\n" for r in rows)
    (tmp_path / "sets.tsv").write_text(text + "G0\tG1\tNOGENE\t1\n")
    return found


def run(capsys, *words):
    console.settings.json = False
    code = cli.run(["graph-profile", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_reports_costs_and_recommends_a_strategy(tmp_path, files, capsys):
    words = ["--graph", files[0], "--graph", files[1], "--triples", tmp_path / "sets.tsv"]
    words += ["--steps", 1, "--batch-size", 3, "--width", 8, "--seconds", 0.05, "--threads", 1]
    words += ["--strategy", "all", "--device", "cpu", "--save", tmp_path / "both.graphs"]
    code, out, err = run(capsys, *words, "-o", tmp_path / "page.html", "--json")
    assert code == 0, err
    found = json.loads(out)
    rows = {row["strategy"]: row for row in found["rows"]}
    assert set(rows) == {*strategies.NAMES, *references.NAMES}
    for name, row in rows.items():
        assert set(row["milliseconds"]) == {"sample", "collate", "copy", "forward", "backward"}
        assert row["samples_a_second"] == pytest.approx(3 * row["iterations_a_second"])
        copy = row["milliseconds"]["copy"]
        assert row["original_iterations_a_second"] == pytest.approx(1000 / copy)
        assert row["largest_batch"] >= 1, name
        assert -1 <= row["alike"] <= 1.001
    assert all(rows[name]["same_output"] for name in references.NAMES)
    assert rows["lazy"]["bytes_a_sample"] <= 1024
    assert rows["khop1"]["nodes_a_sample"] < rows["khop2"]["nodes_a_sample"] <= N
    assert rows["lazy-ref"]["bytes_a_batch"] > rows["khop3-ref"]["bytes_a_batch"]
    assert found["verdict"].startswith("Take ")
    assert re.search(r"left out: \d sets?, of \d genes? without a graph, such as .*NOGENE", err)
    page = (tmp_path / "page.html").read_text()
    assert "milliseconds a sample" in page
    assert "original&#x27;s it/s" in page or "original's it/s" in page
    saved = ["--graph", tmp_path / "both.graphs", "--mode", "data", "--strategy", "khop1"]
    code, out, _ = run(capsys, *saved, "--steps", 1, "--perturbed", "deleted", "--seconds", 0)
    assert code == 0
    assert "in each relation, perturbed genes deleted" in out
    assert "Take khop1" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "graphsage"], "there is no strategy 'graphsage'"),
        (["--graph", "none.tsv"], "none.tsv does not exist"),
        (["--triples", "sets.tsv"], "the synthetic graphs have none"),
        (["--graph", "a.tsv", "--triples", "other.tsv"], "no set has all its genes in the graphs"),
        (["--graph", "a.tsv", "--triples", "twice.tsv"], "G1 is named twice in one set"),
        (["--graph", "one.tsv"], "a graph needs at least two genes"),
        (["--graph", "a.tsv", "-o", "page.txt"], "must end in .html"),
        (["--width", "6"], "width must be a multiple of four"),
    ],
)
def test_bad_input_is_one_line(tmp_path, files, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.tsv").write_text("gene_1\tgene_2\ttau\nTP53\tMYC\t1\n")
    (tmp_path / "twice.tsv").write_text("gene_1\tgene_2\ttau\nG1\tG1\t1\n")
    (tmp_path / "one.tsv").write_text("G1\tG1\n")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_graph_without_a_triple_is_not_saved(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.tsv").write_text("G1\tG2\n")
    code, _, err = run(capsys, "--graph", "two.tsv", "--save", "kept")
    assert code == 2
    assert "no triple can be made" in err
    assert [path.name for path in tmp_path.iterdir()] == ["two.tsv"]


def test_a_batch_that_cannot_fit_has_a_row_with_the_reason(files, capsys):
    words = ["--graph", files[0], "--strategy", "lazy-ref", "--strategy", "dango", "--memory", 1e-5]
    code, out, err = run(capsys, *words, "--steps", 1, "--seconds", 0, "--width", 8)
    assert code == 0
    assert "lazy-ref: not run, a row for every edge of a batch take about" in out
    assert "lazy-ref is not measured" in err
    assert "Take dango" in out


def test_without_vcells_strategies_none_is_recommended():
    assert "none is recommended" in verdict({"rows": [], "mode": "full", "genes": 3})


def test_the_verdict_gives_the_batch_from_which_a_shared_graph_pays():
    def row(name, milliseconds, *, own):
        return {
            "strategy": name, "own_graph": own, "reference_for": "", "nodes_a_sample": 40,
            "milliseconds": {"forward": milliseconds}, "batch_milliseconds": milliseconds,
            "samples_a_second": 8000 / milliseconds,
        }  # fmt: skip

    rows = [row("dango", 800.0, own=False), row("khop1", 400.0, own=True)]
    told = verdict({"rows": rows, "mode": "full", "genes": 60, "batch_size": 8})
    assert told.startswith("Take khop1: 20 samples/s")
    assert "2.0 times dango" in told
    assert "from about 16 samples a batch on" in told
    assert "no longer local: khop1 has 67% of the genes" in told


def test_help_has_an_example():
    told = CliRunner().invoke(command, ["--help"]).output
    assert "vcell graph-profile --scale 0.2" in told
    with pytest.raises(ValueError, match="memory must be above 0"):
        GraphProfile(memory=0)
    assert issubclass(UserError, Exception)
