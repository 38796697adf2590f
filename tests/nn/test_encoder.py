"""The encoder as a module: sizes, start, precisions, recomputing, compiling, maps."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vcell.nn.encoder import Encoder
from vcell.nn.maps import importance
from vcell.nn.patterns import Graph
from vcell.nn.presets import PRESETS, Preset

SMALL = Preset(d_model=16, n_layers=2, n_heads=4, d_ff=32, dropout=0.0)
DROPS = Preset(d_model=16, n_layers=2, n_heads=4, d_ff=32, dropout=0.5)
NAMES = ("sdpa", "chunked", "sparse", "local", "linear")
GRAPH = Graph.from_edges(60, np.random.default_rng(0).integers(0, 60, (90, 2)))


def encoder(name: str = "sdpa", preset: Preset = SMALL) -> Encoder:
    torch.manual_seed(1)
    return Encoder(preset, name, graph=GRAPH, window=4)


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model(x).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def test_the_presets_are_the_ones_asked_for_and_need_no_torch() -> None:
    sizes = {n: (p.d_model, p.n_layers, p.n_heads, p.d_ff, p.dropout) for n, p in PRESETS.items()}
    assert sizes["base"] == (512, 8, 16, 2048, 0.1)
    assert sizes["large"] == (1024, 12, 16, 4096, 0.1)
    check = "import sys, vcell.nn.presets; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
    with pytest.raises(ValueError, match="10 is not a multiple of n_heads 4"):
        Preset(d_model=10, n_layers=1, n_heads=4, d_ff=8)


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_it_starts_with_the_variance_of_a_residual_stream(preset: str) -> None:
    """Each of the 2 L halves adds at most 1 / (2 L) of the variance; the last norm restores 1."""
    torch.manual_seed(0)
    model = Encoder(preset).eval()
    x = torch.randn(1, 30, model.preset.d_model)
    with torch.no_grad():
        stream = x
        for block in model.blocks:
            stream = block(stream)
        assert 1.0 < float(stream.var()) < 2.2
        assert float(model(x).std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 40])
def test_back_ends_work_at_any_length_and_without_order_alike(name: str, n_tokens: int) -> None:
    model = encoder(name).double().eval()
    x = torch.randn(2, n_tokens, 16, dtype=torch.float64)
    out = model(x)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    if name in ("sdpa", "chunked"):  # no positions: shuffled tokens come out shuffled
        mixed = torch.randperm(n_tokens)
        assert torch.allclose(model(x[:, mixed]), out[:, mixed])
        assert torch.allclose(out, encoder("sdpa").double().eval()(x))


def test_padding_changes_nothing() -> None:
    for name in NAMES:
        model = encoder(name).eval()
        x = torch.randn(2, 30, 16)
        valid = torch.arange(30) < torch.tensor([[30], [20]])
        longer = x.clone()
        longer[1, 20:] = 1e3
        out = model(x, valid)
        assert torch.equal(out[1, :20], model(longer, valid)[1, :20])
        assert torch.allclose(out[0], model(x[:1])[0], atol=1e-6)


def test_sparse_reads_only_neighbours_and_global_tokens() -> None:
    one_layer = Preset(d_model=16, n_layers=1, n_heads=4, d_ff=32)
    model = Encoder(one_layer, "sparse", graph=GRAPH).eval()
    x = torch.randn(1, 62, 16, requires_grad=True)
    gene = 7
    model(x)[0, 2 + gene].sum().backward()
    assert x.grad is not None
    read = x.grad[0].abs().sum(1).nonzero()[:, 0] - 2
    partners = GRAPH.indices[GRAPH.indptr[gene] : GRAPH.indptr[gene + 1]]
    assert read.tolist() == [-2, -1, *partners.tolist()]
    with pytest.raises(ValueError, match="needs a graph"):
        Encoder("tiny", "sparse")


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    """With dropout: the recomputation draws the same noise."""
    from vcell.train.prepare import _recompute_activations

    plain, recomputing = encoder(name, DROPS), encoder(name, DROPS)
    _recompute_activations(recomputing, pytest.fail)
    x = torch.randn(2, 40, 16)
    results = []
    for model in (plain, recomputing):
        torch.manual_seed(5)
        results.append(gradients(model, x))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_stays_close(name: str) -> None:
    model = encoder(name)
    x = torch.randn(2, 40, 16)
    exact = gradients(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gradients(model, x)
    for one, other in zip(exact, rough, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert float((one - other).norm() / one.norm()) < 0.03


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["sdpa", "sparse", "linear"])
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_the_compiler_takes_it_whole(name: str, backend: str) -> None:
    """Not one graph break, and the same gradients; by default the compiler's front end alone."""
    model = encoder(name)
    x = torch.randn(2, 40, 16)
    plain = gradients(model, x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for one, other in zip(plain, gradients(compiled, x), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


class TestMaps:
    """Attention looked at afterwards."""

    @pytest.mark.parametrize("name", NAMES)
    def test_maps_are_what_the_forward_pass_weighs_with(self, name: str) -> None:
        """One layer: attention's output is the heads' maps times values."""
        x = torch.randn(2, 40, 16)
        one_head = Preset(d_model=16, n_layers=1, n_heads=1, d_ff=32, dropout=0.0)
        model = Encoder(one_head, name, graph=GRAPH, window=4).eval()
        (weights,) = model.attention_maps(x)
        block = next(model.layers)
        normed = block.norm_attention(x)
        values = block.attention.heads(normed)[2][:, 0]
        out = block.attention(normed, None, model.pattern(40, x.device))
        assert torch.allclose(block.attention.out(weights @ values), out, atol=1e-5)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 40))

    @pytest.mark.parametrize("name", NAMES)
    def test_importance_sums_up_the_maps(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from vcell.nn import maps

        model = encoder(name).eval()
        x = torch.randn(3, 40, 16)
        valid = torch.arange(40) < torch.tensor([[40], [30], [2]])
        layers = torch.stack(model.attention_maps(x, valid=valid))  # (L, B, T, T)
        assert layers[:, 1, :, 30:].abs().max() == 0
        some = torch.stack(model.attention_maps(x, rows=[5, 0], valid=valid))
        assert torch.allclose(some, layers[:, :, [5, 0]])
        monkeypatch.setattr(maps, "_BUDGET", 3 * 4 * 40 * 7)  # seven rows at a time
        given = importance(model, x, valid=valid)
        assert torch.allclose(given, layers[:, :, :2].mean((0, 1, 2)), atol=1e-6)
        taken = importance(model, x, direction="to", tokens=[1], valid=valid)
        expected = (layers[..., 1] * valid).mean((0, 1))
        assert torch.allclose(taken, expected, atol=1e-6)

    def test_the_gene_attended_to_is_the_important_one(self) -> None:
        model = encoder().eval()
        x = 0.1 * torch.randn(1, 40, 16)
        for block in model.layers:  # queries and keys alike: like attends to like
            block.attention.qkv.weight.data[16:32] = 2 * block.attention.qkv.weight.data[:16]
        x[0, 17] = x[0, 1] + 0.01 * torch.randn(16)
        scores = importance(model, x, tokens=[1])
        assert scores[2:].argmax() + 2 == 17
        assert math.isclose(float(scores.sum()), 1, rel_tol=1e-5)
