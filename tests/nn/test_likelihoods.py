"""The fast decoder equals the plain one: values and every gradient, in pieces and with threads."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from tests.nn.compressed_rows import draw_counts, rows_of
from vcell.nn.compressed import CompressedLinear
from vcell.nn.likelihood_types import Kind
from vcell.nn.likelihoods import CountDecoder, by_reference, reference

KINDS = get_args(Kind)


def _decoder(kind, genes, width=9):
    torch.manual_seed(0)
    decoder = CountDecoder(width, genes, kind)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.normal_(0, 0.5)
    return decoder


def _plain(decoder, hidden, rows):
    """The same in float64, by autograd."""
    twin = _decoder(decoder.kind, rows.n_genes).double()
    h = hidden.detach().double().requires_grad_()
    pi = None if twin.dropped is None else twin.dropped(h)
    target = rows.dense(rows.values if twin.kind == "mse" else rows.counts, torch.float64)
    theta = None if twin.log_theta is None else twin.log_theta.exp()
    each = reference(twin.kind, twin.means(h), target, rows.library.double(), theta, pi)
    each.mean().backward()
    return each.detach(), h.grad, {name: p.grad for name, p in twin.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_losses_and_gradients_equal_float64(kind, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rows = rows_of(draw_counts(0))
    decoder = _decoder(kind, rows.n_genes)
    hidden = torch.randn(len(rows), 9, requires_grad=True)
    loss, each = decoder(hidden, rows)
    loss.backward()
    exact, by_hidden, gradients = _plain(decoder, hidden, rows)
    np.testing.assert_allclose(each, exact, rtol=1e-5)
    assert float(loss.detach()) == pytest.approx(float(exact.mean()), rel=1e-5)
    pairs = {name: (p.grad, gradients[name]) for name, p in decoder.named_parameters()}
    for found, wanted in [*pairs.values(), (hidden.grad, by_hidden)]:
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_nothing(kind, monkeypatch):
    rows = rows_of(draw_counts(1, cells=150))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        decoder = _decoder(kind, rows.n_genes)
        torch.manual_seed(1)
        loss, each = decoder(torch.randn(len(rows), 9), rows)
        loss.backward()
        found.append([each, *(p.grad for p in decoder.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_pieces_of_a_batch_add_up():
    rows = rows_of(draw_counts(2))
    whole, cut = _decoder("zinb", rows.n_genes), _decoder("zinb", rows.n_genes)
    hidden = torch.randn(len(rows), 9)
    whole(hidden, rows)[0].backward()
    for part in (slice(0, 23), slice(23, 24), slice(24, len(rows))):
        piece = rows[part]
        (cut(hidden[part], piece)[0] * len(piece) / len(rows)).backward()
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        limit = 1e-5 * float(one.grad.abs().max())
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-4, atol=limit)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fallback_gives_the_same(kind, monkeypatch):
    rows = rows_of(draw_counts(3) % 50)  # float32 lgamma is no match for larger ones
    found = []
    for slow in (False, True):
        if slow:
            monkeypatch.setattr("vcell.nn.likelihoods.kernel_for", lambda *_: by_reference)
        decoder = _decoder(kind, rows.n_genes)
        torch.manual_seed(1)
        loss, each = decoder(torch.randn(len(rows), 9), rows)
        loss.backward()
        found.append([each, *(p.grad for p in decoder.parameters())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("threads", [1, 2])
def test_first_layer_equals_a_dense_one(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rows = rows_of(draw_counts(4, cells=300))
    layer, dense = CompressedLinear(rows.n_genes, 16), nn.Linear(rows.n_genes, 16)
    with torch.no_grad():
        dense.weight.copy_(layer.weight.T)
        dense.bias.copy_(layer.bias)
    slope = torch.randn(len(rows), 16)
    found, exact = layer(rows), dense(rows.dense(rows.values))
    found.backward(slope)
    exact.backward(slope)
    np.testing.assert_allclose(found.detach(), exact.detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.weight.grad, dense.weight.grad.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.bias.grad, dense.bias.grad, rtol=1e-4, atol=1e-4)


def test_a_slice_is_those_rows():
    counts = draw_counts(5)
    rows = rows_of(counts, label=torch.arange(len(counts)))
    part = rows[10:20][2:6]
    assert len(part) == 4
    assert part.more["label"].tolist() == [12, 13, 14, 15]
    np.testing.assert_array_equal(part.dense(part.counts), counts[12:16])


def test_start_at_the_mean_profile_is_better_than_at_random():
    counts = draw_counts(6) % 40
    rows = rows_of(counts)
    decoder = CountDecoder(9, rows.n_genes, "nb")
    hidden = torch.zeros(len(rows), 9)
    before = decoder(hidden, rows)[1].mean()
    decoder.start_at(torch.from_numpy(counts.sum(0) / counts.sum()).float())
    assert decoder(hidden, rows)[1].mean() < before
