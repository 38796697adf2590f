"""Tokens, phases and the estimated cost of a network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.network import costs, shape
from vcell_train_vcc.network import losses as network_losses
from vcell_train_vcc.network.shape import NetworkShape

from tests.train_vcc.test_network_parts import config
from vcell.errors import UserError
from vcell.launch import Plan
from vcell.nn import distances
from vcell.screen import graphs
from vcell.train.threads import few_threads


def small_screen(n):
    return SimpleNamespace(
        genes=np.array([f"G{i}" for i in range(n)]),
        delta=np.arange(n, dtype=np.float32)[None],
        rows=lambda part: np.array([0]),
    )


def decide(n, **settings):
    return NetworkShape.decide(
        "transformer", small_screen(n), config(**settings), torch.device("cpu")
    )


def test_tokens_are_the_most_responsive_genes_or_those_of_the_file(tmp_path):
    assert decide(20, tokens=8).tokens == tuple(f"G{i}" for i in range(19, 11, -1))
    (tmp_path / "genes.csv").write_text("gene\nG3\nG1\nnone\n")
    assert decide(20, genes=tmp_path / "genes.csv").tokens == ("G3", "G1")


def test_four_phases_share_the_steps(capsys):
    form = decide(6000, tokens=5000, strategy="progressive", max_steps=400)
    assert form.phases == ((500, 0), (1200, 100), (2500, 200), (5000, 300))
    assert [form.n_tokens(step) for step in (0, 99, 100, 399)] == [500, 500, 1200, 5000]
    assert [phase.start for phase in form.announced()] == [0, 100, 200, 300]
    assert "phases have" not in capsys.readouterr().err


def test_fewer_genes_scale_the_phases_with_a_message(capsys):
    assert decide(1000, tokens=1000, strategy="progressive").phases[0] == (100, 0)
    assert "so the phases have 100, 240, 500, 1,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"phase_genes": (100, 400)}, "phase 2 wants 400 genes and there are 300 tokens"),
        ({"phase_genes": (100, 90)}, "more genes than the previous one"),
        ({"tokens": 40}, "phase 1 would have 4"),
        ({"max_steps": 3}, "too few for 4 phases"),
    ],
)
def test_impossible_phases_are_refused_before_training(settings, said):
    with pytest.raises(UserError, match=said):
        decide(300, **{"tokens": 300, "strategy": "progressive", **settings})


def test_sets_that_cannot_be_pooled_are_refused():
    with pytest.raises(UserError, match="equal pseudo-cells"):
        decide(20, set_size=32, pseudo=3)


def test_a_graph_file_joins_tokens(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\tjaccard\nG1\tG0\t0.5\nG1\tG9\t0.2\n")
    genes = ["G1", "G0", "G5"]
    stored = graphs.stored_fields(graphs.read_graphs([path], genes, []), genes)
    screen = SimpleNamespace(genes=np.array(genes), **stored)
    before = SimpleNamespace(graph_names=[])  # of a version that kept the path alone
    for one in (screen, before):
        graph = shape.graph_of([path], ["G0", "G1"], one)
        assert graph.indices.tolist() == [0, 1, 0, 1]  # both ways, and each its own neighbour
    with pytest.raises(UserError, match="no edge of pairs joins two of the token genes"):
        shape.graph_of([path], ["G0", "G5"], screen)
    with pytest.raises(UserError, match="no gene in common"):
        graphs.read_graphs([path], ["A", "B"], [])


def test_a_narrow_network_is_computed_by_one_thread(monkeypatch):
    before, cpu = torch.get_num_threads(), torch.device("cpu")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def threads(width, device):
        torch.set_num_threads(2)
        with few_threads(width, device):
            return torch.get_num_threads()

    try:
        assert threads(64, cpu) == 1
        assert torch.get_num_threads() == 2
        assert threads(512, cpu) == 2
        assert threads(64, torch.device("cuda")) == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert threads(64, cpu) == 2
    finally:
        torch.set_num_threads(before)


class Largest(TorchDispatchMode):
    """Records the largest tensor."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.size = max(self.size, out.nbytes)
        return out


@pytest.mark.parametrize("sets", [1, 4, 30])
def test_the_estimate_counts_the_block_of_the_retrieval_loss(monkeypatch, sets):
    monkeypatch.setattr(distances, "BLOCK", 500)
    learned, genes = 37, 11
    effect = torch.rand(sets, genes, requires_grad=True)
    bank = torch.rand(learned, genes)
    far = distances.taxicab(effect, bank)
    with Largest() as made:
        far.sum().backward()
    told = network_losses.retrieval_bytes(TrainVcc(), sets, learned, genes)
    assert (told[0], max(told[1], far.nbytes)) == (bank.nbytes, made.size)
    assert network_losses.retrieval_bytes(TrainVcc(pds_loss=0.0), sets, learned, genes) == (0, 0)


def test_the_retrieval_loss_of_many_perturbations_is_in_the_estimate():
    config = TrainVcc(preset="tiny", tokens=24, batch_size=2, set_size=2, pseudo=1)
    few, many = (costs.of(config, Plan("cpu", 1), learned=learned)[0] for learned in (100, 9000))
    block = (9000 - 100) * 24 * 4
    assert many.memory_bytes - few.memory_bytes == block + 2 * block  # its bank; two sets at once
