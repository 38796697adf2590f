"""The loss of the graphs, against its definition with dense matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vcell.errors import UserError
from vcell.nn.blocked import blocked_attention_and_lse
from vcell.nn.graph_loss import GraphLoss, RowGraph, attend_apart, row_divergence, shares, warned
from vcell.nn.lse import attention, attention_and_lse

HEADS, WIDTH = 3, 4


def csr(n: int, density: float, seed: int, isolated: int = 2):
    """A weighted directed graph; the last nodes have no edges."""
    rng = np.random.default_rng(seed)
    dense = rng.random((n, n)) * (rng.random((n, n)) < density)
    dense[n - isolated :] = 0
    row, column = dense.nonzero()
    return np.concatenate([[0], np.cumsum((dense > 0).sum(1))]), column, dense[row, column], dense


def qkv(n: int, extra: int = 0, dtype: torch.dtype = torch.float64, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, HEADS, n + extra, WIDTH, generator=draw, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for _ in range(3)
    ]


def dense_loss(q: Tensor, k: Tensor, dense: np.ndarray, genes: slice) -> Tensor:
    """Mean over rows with edges of KL(row of the graph || attention over genes), written out."""
    q, k = q[:, genes].double(), k[:, genes].double()
    attention = torch.softmax(q @ k.transpose(-2, -1) / WIDTH**0.5, -1)[0]
    sums = dense.sum(1, keepdims=True)
    wanted = torch.from_numpy(np.divide(dense, sums, out=np.zeros_like(dense), where=sums > 0))
    each = torch.where(
        wanted > 0, wanted * (wanted.clamp_min(1e-300).log() - attention.log()), 0.0
    ).sum(1)
    return each[torch.from_numpy(sums[:, 0] > 0)].mean()


def loss_of(q, k, v, graphs, genes):
    out, lse = attend_apart(q[:, :, genes], k, v, genes)
    found = GraphLoss(graphs, 0.5)(q[:, :, genes], k[:, :, genes], lse)
    return out, found


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("cls", [0.0, 12.0], ids=["", "CLS takes the attention"])
def test_the_loss_and_its_gradient_are_those_of_the_dense_definition(dtype, tolerance, cls):
    n, genes = 37, slice(1, 38)
    names = ["a", "b", "c"]
    made = [csr(n, density, i) for i, density in enumerate((0.05, 0.3, 0.9))]
    graphs = {name: RowGraph.of(*one[:3]) for name, one in zip(names, made, strict=True)}
    q, k, v = qkv(n, 3, dtype)
    with torch.no_grad():  # [CLS] is the first token, and two genes come after those of the graph
        k[:, :, 0] = cls * q.mean(2) / q.mean(2).norm(dim=-1, keepdim=True) ** 2
        q += cls / 4 * k[:, :, :1] / k[:, :, :1].norm(dim=-1, keepdim=True).clamp_min(1)
    out, found = loss_of(q, k, v, graphs, genes)
    found.total.backward()
    got = [x.grad.clone() for x in (q, k)]
    for x in (q, k):
        x.grad = None
    wanted = [dense_loss(q[:, h], k[:, h], made[h][3], genes) for h in range(3)]
    total = 0.5 * torch.stack(wanted).sum()
    total.backward()
    assert found.total.double().item() == pytest.approx(total.item(), rel=tolerance)
    for ours, x in zip(got, (q, k), strict=True):
        scale = x.grad.abs().max()
        assert ((ours - x.grad).abs().max() / scale) < tolerance
    whole = torch.softmax(q[:, :, genes] @ k.transpose(-2, -1) / WIDTH**0.5, -1)
    if cls:
        assert whole[..., 0].median() > 0.9  # it does take the attention
    assert torch.allclose(out, (whole @ v).to(dtype), atol=10 * tolerance)


def test_where_subtracting_cls_loses_the_gradient_merging_keeps_it():
    n, genes = 19, slice(1, 20)
    graph = RowGraph.of(*csr(n, 0.4, 3)[:3])
    q, k, v = qkv(n, 1, torch.float32)
    with torch.no_grad():
        q[...] = q * 0.1 + 3.0
        k[:, :, 0] = 8.0

    def gradient(merged: bool) -> Tensor:
        x = q.detach()[:, :, genes].clone().requires_grad_()
        if merged:
            _, lse = attend_apart(x, k.detach(), v.detach(), genes)
        else:
            _, whole = attention_and_lse(x, k.detach(), v.detach())
            score = (x * k.detach()[:, :, :1]).sum(-1) / WIDTH**0.5
            lse = whole + torch.log1p(-(score - whole).exp())
        row_divergence(x[0, 0], k.detach()[0, 0, genes], lse[0, 0], graph).sum().backward()
        return x.grad

    exact = q.detach().double()[:, :, genes].clone().requires_grad_()
    _, lse = attend_apart(exact, k.detach().double(), v.detach().double(), genes)
    row_divergence(exact[0, 0], k.detach().double()[0, 0, genes], lse[0, 0], graph).sum().backward()
    scale = exact.grad.abs().max()
    assert (gradient(merged=True) - exact.grad).abs().max() / scale < 2e-5
    subtracted = (gradient(merged=False) - exact.grad).abs().max() / scale
    assert not subtracted < 1e-3  # also where it is not a number


def test_the_log_sum_exp_has_a_gradient_also_with_other_keys_and_padding():
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    torch.autograd.gradcheck(lambda *x: attention_and_lse(*x, valid), (q, k, v))
    wide = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(attention_and_lse, (q, k, wide))
    torch.autograd.gradcheck(attention_and_lse, (q, k, v))  # torch's own kernel
    torch.autograd.gradcheck(attention, (q, k, v))
    wanted = torch.softmax(q @ k.mT / 2, -1) @ v
    assert (attention(q, k, v) - wanted).abs().max() < 1e-12
    assert (attention_and_lse(q, k, v)[0] - wanted).abs().max() < 1e-12
    torch.autograd.gradcheck(blocked_attention_and_lse, (q, k, v))


def test_rows_without_edges_are_left_out_and_counted():
    indptr, indices, weights, _ = csr(9, 0.5, 1, isolated=4)
    graph = RowGraph.of(indptr, indices, weights)
    assert graph.n_left_out == 4
    assert GraphLoss({"g": graph}, 1.0).left_out == {"g": 4}
    q, k, v = qkv(9)
    _, found = loss_of(q, k, v, {"g": graph}, slice(0, 9))
    found.total.backward()
    assert torch.all(q.grad[0, 0, 5:] == 0)
    assert torch.all(q.grad[0, 1:] == 0)  # the head of no graph
    empty = RowGraph.of(np.zeros(10, int), [])
    _, nothing = loss_of(q, k, v, {"g": empty}, slice(0, 9))
    assert nothing.total == 0
    nothing.total.backward()


def test_genes_that_take_no_part_are_neither_rows_nor_neighbours():
    indptr, indices, weights, dense = csr(9, 0.6, 2)
    valid = np.ones(9, bool)
    valid[[1, 4]] = False
    smaller = dense[np.ix_(valid, valid)]
    row, column = smaller.nonzero()
    ends = np.concatenate([[0], np.cumsum((smaller > 0).sum(1))])
    part = RowGraph.of(indptr, indices, weights, valid=valid)
    q, k, v = qkv(9)
    there = torch.from_numpy(valid)
    _, lse = attend_apart(q, k, v, slice(0, 9), there[None])
    found = GraphLoss({"g": part}, 1.0)(q, k, lse)
    keep = torch.from_numpy(np.flatnonzero(valid))
    q2, k2, v2 = (x[:, :, keep] for x in (q, k, v))
    _, alone = attend_apart(q2, k2, v2, slice(0, 7))
    again = GraphLoss({"g": RowGraph.of(ends, column, smaller[row, column])}, 1.0)(q2, k2, alone)
    assert found.total.item() == pytest.approx(again.total.item(), rel=1e-12)


def test_a_share_of_the_rows_is_right_on_average_and_repeatable():
    graph = {"g": RowGraph.of(*csr(60, 0.3, 5)[:3])}
    q, k, v = (x.detach() for x in qkv(60))
    _, lse = attend_apart(q, k, v, slice(0, 60))
    whole = GraphLoss(graph, 1.0)(q, k, lse).total
    part = GraphLoss(graph, 1.0, share=0.3)
    drawn = [
        float(part(q, k, lse, generator=torch.Generator().manual_seed(i)).total) for i in range(200)
    ]
    assert np.mean(drawn) == pytest.approx(float(whole), abs=4 * np.std(drawn) / 200**0.5)
    assert drawn[7] == float(part(q, k, lse, generator=torch.Generator().manual_seed(7)).total)


def test_shares_are_told_and_warned_about():
    graphs = {"a": RowGraph.of(*csr(20, 0.3, 1)[:3]), "b": RowGraph.of(*csr(20, 0.3, 2)[:3])}
    q, k, v = qkv(20)
    said: list[str] = []
    for weight, warns in ((1e-4, False), (1e4, True)):
        _, lse = attend_apart(q, k, v, slice(0, 20))
        found = GraphLoss(graphs, weight)(q, k, lse)
        told = shares((q * k).sum().square(), found, ["a", "b"], [q, k])
        warned(told, said.append)
        assert bool(said) == warns
        assert 0 < told["a"].loss < 1
        assert 0 < told["b"].gradient < 1
    assert "of its gradient" in said[0]


def test_weights_that_attention_cannot_follow_are_refused():
    with pytest.raises(UserError, match="weighs -1"):
        RowGraph.of([0, 1, 2], [1, 0], [2.0, -1.0])
    with pytest.raises(UserError, match="weighs nan"):
        RowGraph.of([0, 1, 2], [1, 0], [np.nan, 1.0])
