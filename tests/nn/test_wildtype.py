"""The wild type encoded once and its head, against the naive forms, which look at everything."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vcell.nn.encoder import Encoder
from vcell.nn.graph_loss import GraphLoss, RowGraph
from vcell.nn.presets import Preset
from vcell.nn.wildtype import NONE, GeneState, PerturbationHead, SetPooling, WildType

N, D, NEW = 50, 12, 3
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=["f64", "f32"]
)


def sets(seed: int = 0, new: int = 0) -> tuple[Tensor, Tensor]:
    """Sets of one to four genes, one of them empty at the end; kinds of all sorts."""
    draw = torch.Generator().manual_seed(seed)
    genes = torch.stack([torch.randperm(N, generator=draw)[:4] for _ in range(9)])
    for row, size in enumerate((4, 3, 2, 1, 3, 3, 3, 3, 3)):
        genes[row, size:] = NONE
    kinds = torch.where(
        torch.rand(genes.shape, generator=draw) < 0.5, GeneState.ABSENT, GeneState.OVEREXPRESSED
    )
    if new:
        genes[4, 0], genes[5, 1], genes[5, 2] = N, N + 1, N + 2
        kinds = torch.where(genes >= N, GeneState.ADDED, kinds)
    return genes, kinds


def naive(head: PerturbationHead, states: Tensor, genes: Tensor, kinds: Tensor, new: Tensor | None):
    """Phi of every gene for every set, and a softmax over all of them."""
    out = []
    for all_own, all_what in zip(genes, kinds, strict=True):
        own, what = all_own[all_own >= 0], all_what[all_own >= 0]
        rows = states if new is None else torch.cat([states, new])
        among = torch.arange(N)
        if new is not None:
            among = torch.cat([among, own[own >= N]])
        kind = torch.zeros(len(rows), dtype=torch.long)
        kind[own] = what
        pooled = head.pool(rows[own] + head.kind(what)).mean(0)
        beta = torch.softmax(head.key(rows[among]) @ head.query(pooled) / D**0.5, 0)
        out.append(beta @ head.phi(rows[among], kind[among]))
    return torch.stack(out)


@PRECISIONS
@pytest.mark.parametrize("with_new", [False, True], ids=["", "new genes"])
def test_the_head_is_the_naive_one_in_value_and_gradient(dtype, tolerance, with_new):
    torch.manual_seed(1)
    head = PerturbationHead(D).double()
    genes, kinds = sets(new=NEW if with_new else 0)
    states, new = torch.randn(N, D).double(), torch.randn(NEW, D).double()
    weight = torch.randn(len(genes), D).double()

    def run(module, how, kind):
        x = states.to(kind).clone().requires_grad_()
        y = new.to(kind).clone().requires_grad_() if with_new else None
        z = how(module, x, y)
        (z * weight.to(kind)).sum().backward()
        grads = [x.grad, *(p.grad for p in module.parameters())]
        return z, grads + ([y.grad] if with_new else [])

    exact = run(copy.deepcopy(head), lambda m, x, y: naive(m, x, genes, kinds, y), torch.float64)
    ours = run(copy.deepcopy(head).to(dtype), lambda m, x, y: m(x, genes, kinds, y), dtype)
    for a, b in zip([ours[0], *ours[1]], [exact[0], *exact[1]], strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-3)


def test_the_order_of_a_set_and_places_not_taken_do_not_matter():
    head = PerturbationHead(D)
    states = torch.randn(N, D)
    genes, kinds = sets()
    turned = head(states, genes.flip(1), kinds.flip(1))
    assert torch.allclose(head(states, genes, kinds), turned, atol=1e-6)
    wide = F.pad(genes, (0, 3), value=NONE), F.pad(kinds, (0, 3))
    assert torch.allclose(head(states, genes, kinds), head(states, *wide), atol=1e-6)


@PRECISIONS
def test_pooling_of_sets_is_that_of_each_set_by_itself(dtype, tolerance):
    torch.manual_seed(2)
    pooling = SetPooling(D, 3).double()
    genes, _ = sets()
    states = torch.randn(9, 4, D).double()
    there = genes >= 0
    found = copy.deepcopy(pooling).to(dtype)(states.to(dtype), there)
    for row in range(9):
        x = states[row][there[row]]
        q, k, v = pooling.qkv(x).view(len(x), 3, 3, -1).unbind(1)
        parts = []
        for h in range(3):
            score = q[:, h] @ k[:, h].T / (D // 3) ** 0.5
            score.fill_diagonal_(-torch.inf)
            parts.append(torch.softmax(score, -1).nan_to_num() @ v[:, h])
        wanted = (pooling.out(torch.cat(parts, 1)) - pooling.own(x)).square().mean(0)
        assert (found[row] - wanted).abs().max() < tolerance * 10


def encoder() -> Encoder:
    torch.manual_seed(3)
    return Encoder(Preset(d_model=D, n_layers=3, n_heads=3, d_ff=24, dropout=0.0)).double()


def test_encoding_with_graphs_gives_the_states_of_the_plain_encoder():
    ring = RowGraph.of(range(N + 1), [(i + 1) % N for i in range(N)])
    plain = WildType(encoder()).double()
    told = WildType(encoder(), GraphLoss({"ring": ring}, 1.0, heads=[2]), layer=1).double()
    told.load_state_dict(plain.state_dict())
    x = torch.randn(N, D).double()
    wanted = plain.encoder(torch.cat([plain.cls[None], x])[None])[0, 1:]
    assert torch.allclose(plain(x).states, wanted, atol=1e-12)
    found = told(x)
    assert torch.allclose(found.states, wanted, atol=1e-12)
    assert found.graphs is not None
    assert found.graphs.total > 0


def test_new_genes_see_the_wild_type_and_do_not_change_it():
    wild = WildType(encoder()).double()
    x, new = torch.randn(N, D).double(), torch.randn(NEW, D).double()
    encoded = wild(x)
    appended = wild.append(encoded, new)
    seen = torch.zeros(N + 1 + NEW, N + 1 + NEW, dtype=torch.bool)
    seen[:, : N + 1] = True
    seen[range(N + 1, N + 1 + NEW), range(N + 1, N + 1 + NEW)] = True
    y = torch.cat([wild.cls[None], x, new])[None]
    for block in wild.encoder.layers:
        q, k, v = block.attention.heads(block.norm_attention(y))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y = y + block.attention.out(mixed.transpose(1, 2).reshape(y.shape))
        y = y + block.down(F.gelu(block.up(block.norm_mlp(y))))
    wanted = wild.encoder.norm(y)[0]
    assert torch.allclose(encoded.states, wanted[1 : N + 1], atol=1e-12)
    assert torch.allclose(appended, wanted[N + 1 :], atol=1e-12)
