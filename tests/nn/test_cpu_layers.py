"""numpy's layers give what torch's give in float64, for any lengths, scores and threads."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from vcell.geneformer import checkpoint
from vcell.nn import cpu_layers
from vcell.nn.bert import Bert, BertShape, Lengths

D, HEADS, LAYERS = 128, 2, 3


def bert_of(*, sharp=1.0, seed=0):
    shape = BertShape(
        n_layers=LAYERS, d_model=D, n_heads=HEADS, d_ff=48, n_positions=700, n_tokens=900
    )
    bert = Bert(shape)
    checkpoint.made_up(bert, seed, smooth=False)
    bert.requires_grad_(requires_grad=False)
    for block in bert.blocks:
        block.qkv.weight[: 2 * D] *= sharp
        block.qkv.bias.normal_(generator=torch.Generator().manual_seed(1))
    return bert


def tokens_of(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(2, 900, sum(lengths))), Lengths.of(lengths)


def in_float64(bert, tokens, lengths, n_layers=LAYERS):
    """Every sequence by itself, in torch's float64."""
    exact = copy.deepcopy(bert).double()
    exact.numpy_products = False
    out = []
    for own in torch.split(tokens, list(lengths.each)):
        x = exact.embed(own, torch.arange(len(own)))
        for number in range(n_layers):
            block = exact.block(number)
            q, k, v = block.qkv(x).view(len(own), 3, HEADS, -1).permute(1, 2, 0, 3)
            mixed = ((q @ k.mT) * (D // HEADS) ** -0.5).softmax(-1) @ v
            x = block.norm_attention(x + block.out(mixed.transpose(0, 1).reshape(len(own), D)))
            x = block.norm_output(x + block.down(block.up(x).relu()))
        out.append(x)
    return torch.cat(out).numpy()


@pytest.fixture
def seen(monkeypatch):
    """What the layers told of themselves."""
    told = []
    monkeypatch.setattr(cpu_layers, "observers", [lambda *facts: told.append(facts)])
    return told


@pytest.mark.parametrize(
    "lengths",
    [(1,), (1, 1, 1), (2, 700, 3, 511), (40, 40, 40), (257, 256, 255), (513,), (31,) * 40],
)
def test_equal_to_float64(lengths, seen):
    bert = bert_of()
    tokens, shape = tokens_of(*lengths)
    with torch.inference_mode():
        found = bert.encode(tokens, shape, LAYERS).numpy()
    assert seen
    np.testing.assert_allclose(found, in_float64(bert, tokens, shape), atol=1e-5)


@pytest.mark.parametrize("sharp", [0.0, 3.0, 40.0])
def test_scores_of_any_size(sharp):
    """From all keys alike to one that has all the weight, as close to float64 as torch is."""
    bert = bert_of(sharp=sharp)
    tokens, shape = tokens_of(90, 300)
    exact = in_float64(bert, tokens, shape, 1)
    gaps = []
    for by_numpy in (True, False):
        bert.numpy_products = by_numpy
        with torch.inference_mode():
            gaps.append(np.abs(bert.encode(tokens, shape, 1).numpy() - exact).max())
    assert gaps[0] <= 4 * gaps[1] + 1e-6


def test_threads_change_nothing(monkeypatch):
    bert = bert_of()
    tokens, shape = tokens_of(300, 20, 600, 41, 513, 2, 512)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        with torch.inference_mode():
            found.append(bert.encode(tokens, shape, LAYERS).numpy())
    np.testing.assert_array_equal(*found)


def test_what_is_given_is_not_changed():
    bert = bert_of()
    x = torch.randn(50, D)
    mixed = torch.randn(50, D)
    kept = x.clone(), mixed.clone()
    with torch.inference_mode():
        found = bert.layers(x, Lengths((50,)), 0, 2, mixed)
        bert.numpy_products = False
        wanted = bert.layers(x, Lengths((50,)), 0, 2, mixed)
    torch.testing.assert_close((x, mixed), kept)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_torch_computes_where_gradients_or_other_precisions_are_wanted(seen):
    bert = bert_of()
    tokens, shape = tokens_of(30)
    x = bert.embed(tokens, torch.arange(30)).requires_grad_()
    bert.layers(x, shape, 0, LAYERS).sum().backward()
    assert x.grad is not None
    with torch.inference_mode():
        bert.set_precision("bf16")
        bert.encode(tokens, shape, LAYERS)
    assert not seen


def test_a_weight_that_is_no_number_is_not_hidden():
    bert = bert_of()
    bert.block(1).up.bias[3] = torch.nan
    tokens, shape = tokens_of(30)
    with torch.inference_mode():
        assert bert.encode(tokens, shape, LAYERS).isnan().all()
