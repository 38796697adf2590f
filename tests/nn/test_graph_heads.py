"""Heads that follow graphs change no output, and are as far from them as dense attention says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcell.errors import UserError
from vcell.graph import GeneGraphs, Relation
from vcell.nn.encoder import N_GLOBAL, Encoder
from vcell.nn.graph_heads import GraphHeads, encoded, following

N, B = 23, 3


def graphs(n: int = N) -> GeneGraphs:
    rng = np.random.default_rng(0)
    made = [
        Relation.from_edges(
            name, *rng.integers(0, n, (2, size)), n, rng.random(size).astype(np.float32)
        )[0]
        for name, size in (("few", 9), ("many", 60))
    ]
    return GeneGraphs(tuple(f"g{i}" for i in range(n)), tuple(made), {})


def dense(encoder: Encoder, x: torch.Tensor, relation: Relation, head: int) -> torch.Tensor:
    """KL of the graph's rows to attention over genes, of each sample, written out."""
    n = x.shape[1] - N_GLOBAL
    weight = np.zeros((N, N))
    weight[relation.targets, relation.indices] = relation.weights
    weight = np.maximum(weight, weight.T)[:n, :n]
    rows = weight.sum(1) > 0
    wanted = torch.from_numpy(weight[rows] / weight[rows].sum(1, keepdims=True))
    first = next(encoder.layers)
    q, k, _ = (
        y[:, head, N_GLOBAL:].double() for y in first.attention.heads(first.norm_attention(x))
    )
    said = torch.log_softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, -1)[:, rows]
    each = torch.where(wanted > 0, wanted * (wanted.clamp_min(1e-300).log() - said), 0.0)
    return each.sum(2).mean(1)


@pytest.mark.parametrize("n", [N, 12])
def test_the_first_layer_says_how_far_it_is_and_nothing_else_changes(n):
    torch.manual_seed(0)
    encoder = Encoder("tiny").eval()
    x = torch.randn(B, N_GLOBAL + n, 64, requires_grad=True)
    made = graphs()
    found = encoded(encoder, x, GraphHeads(made, 4, 0.1))
    assert torch.allclose(found["trunk"], encoder(x), atol=1e-5)
    for i, relation in enumerate(made):
        wanted = dense(encoder, x, relation, i)
        assert torch.allclose(found["graphs"][:, i].double(), wanted, rtol=1e-4, atol=1e-5)
        (got,) = torch.autograd.grad(found["graphs"][:, i].sum(), x, retain_graph=True)
        (slope,) = torch.autograd.grad(wanted.sum(), x)
        assert torch.allclose(got, slope, atol=1e-5)


def test_of_more_graphs_than_heads_the_first_are_followed_and_it_is_said():
    said: list[str] = []
    heads = following(graphs(), 0.1, 1, "sdpa", said.append)
    assert heads.names == ("few",)
    assert "does not follow many: each of 1 heads" in said[0]
    assert following(graphs(), 0.0, 4, "sdpa") is None
    assert following(None, 0.1, 4, "sdpa") is None


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(UserError, match="over all genes, and linear is not"):
        following(graphs(), 0.1, 4, "linear")
    empty = GeneGraphs(("a", "b"), (Relation.from_edges("none", *np.zeros((2, 0), int), 2)[0],), {})
    with pytest.raises(UserError, match="no edge of none joins two of the 2 token genes"):
        following(empty, 0.1, 4, "sdpa")


def test_the_weight_counts_once_and_shares_are_of_what_is_added():
    torch.manual_seed(0)
    encoder = Encoder("tiny")
    x = torch.randn(B, N_GLOBAL + N, 64, requires_grad=True)
    heads = GraphHeads(graphs(), 4, 0.25)
    found = encoded(encoder, x, heads)
    rest = found["trunk"].square().mean()
    told = heads.joined({"total": rest, "error": rest}, found["graphs"], found["tokens"])
    added = 0.25 * found["graphs"].mean(0)
    told = {name: value.detach() for name, value in told.items()}
    whole = float((rest + added.sum()).detach())
    assert float(told["graphs"]) == pytest.approx(float(added.detach().sum()))
    assert float(told["total"]) == pytest.approx(whole)
    for name, part in zip(heads.names, added.detach(), strict=True):
        assert float(told[f"loss_share_{name}"]) == pytest.approx(float(part) / whole, rel=1e-5)
    pushes = [
        float(torch.autograd.grad(part, x, retain_graph=True)[0].norm()) for part in (rest, *added)
    ]
    shares = [float(told[f"gradient_share_{name}"]) for name in heads.names]
    assert shares == pytest.approx([push / sum(pushes) for push in pushes[1:]], rel=1e-4)
