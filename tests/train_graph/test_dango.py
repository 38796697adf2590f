"""The graph loss of `dango`, against the dense definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from vcell_train_graph import TrainGraph
from vcell_train_graph.networks import Dango
from vcell_train_graph.planted import planted

from tests.train_graph.test_kernels import as_problem
from vcell.graph import GeneGraphs


@pytest.mark.parametrize(("n_genes", "named"), [(30, "coexpression"), (1100, "other")])
def test_dango_reconstructs_neighbours_with_small_weights_for_zeros(n_genes, named):
    problem = as_problem(planted(n_genes=n_genes, n_queries=12, per_query=5, n_decoys=1, seed=0))
    first, second = problem.graphs
    renamed = dataclasses.replace(first, name=f"STRING {named}")
    problem = dataclasses.replace(
        problem, graphs=GeneGraphs(problem.genes, (renamed, second), {})
    )  # fmt: skip
    network = Dango(problem, TrainGraph(width=16, heads=2, dropout=0.0, graph_loss=0.5))
    views = network.views()
    torch.manual_seed(3)
    found = network.rebuilt(views)
    torch.manual_seed(3)
    rows = torch.randint(n_genes, (min(64, n_genes),))
    for k, relation in enumerate(problem.graphs):
        both = relation.both()
        dense = np.zeros((n_genes, n_genes))
        dense[np.repeat(np.arange(n_genes), np.diff(both.indptr)), both.indices] = 1
        error = (network.told[k](views[k][rows]).detach().numpy() - dense[rows]) ** 2
        zero = 0.1 if k == 0 and named == "coexpression" else 1.0
        wanted = np.where(dense[rows] > 0, error, zero * error).mean()
        assert float(found[k].detach()) == pytest.approx(wanted, rel=1e-5)
    told = network(torch.from_numpy(problem.members))
    assert told["graphs"].sum().item() == pytest.approx(0.5 * told["missed"].sum().item())
    assert "graphs" not in network.eval()(torch.from_numpy(problem.members))
