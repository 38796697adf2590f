"""The estimate against the module itself: its weights, torch's FLOP counter, what is kept."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vcell.nn import rates
from vcell.nn.encoder import Encoder
from vcell.nn.estimate import Besides, encoder_parameters, estimate
from vcell.nn.patterns import Graph
from vcell.nn.presets import PRESETS, Preset
from vcell.train.prepare import _recompute_activations

PRESET = Preset(d_model=64, n_layers=3, n_heads=4, d_ff=256)
T, B = 302, 2
NAMES = ("sdpa", "chunked", "sparse", "local", "linear")


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure nothing where time does not matter."""
    monkeypatch.setattr(rates, "measure", lambda *_: rates.Rates(1.0, 0.25, 2.0, 0.5, 1e-9))


def encoder(name: str = "sdpa", preset: Preset = PRESET) -> Encoder:
    return Encoder(preset, name, graph=Graph.band(T - 2, 10), window=20)


def kept(model: nn.Module, x: Tensor) -> int:
    """Bytes of everything a forward pass keeps, weights apart, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(x)
    return sum(t.untyped_storage().nbytes() for p, t in held.items() if p not in weights)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_exact(preset: str, no_clock: None) -> None:
    with torch.device("meta"):
        model = Encoder(preset)
    count = sum(p.numel() for p in model.parameters())
    assert encoder_parameters(PRESETS[preset]) == count
    assert estimate(preset, T, B, besides=Besides(parameters=7)).parameters == count + 7


@pytest.mark.parametrize("name", NAMES)
def test_flops_are_those_torch_counts(name: str, no_clock: None) -> None:
    """Scores that the blocks' operator computes again going back are not counted."""
    model = encoder(name)
    x = torch.randn(B, T, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    again = sum(n for op, n in counts.items() if "blocked_attention_backward" in str(op)) // 5
    pattern = model.pattern(T, x.device)
    expected = estimate(PRESET, T, B, attention=name, pattern=pattern).flops
    assert counter.get_total_flops() - again == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_activations_are_what_autograd_keeps(
    name: str, dtype: torch.dtype, recompute: bool, no_clock: None
) -> None:
    model = encoder(name)
    x = torch.randn(B, T, 64, requires_grad=True)
    pattern = model.pattern(T, x.device)
    memory = estimate(
        PRESET, T, B, attention=name, pattern=pattern, dtype=dtype, checkpointing=recompute
    ).memory
    if recompute:
        _recompute_activations(model, pytest.fail)
    half = dtype != torch.float32
    with torch.autocast("cpu", dtype=dtype) if half else nullcontext():
        found = kept(model, x)
    if recompute:  # the block computed again is kept while it goes back, seen by no hook
        found += kept(encoder(name).blocks[0], x) if not half else 0
        assert found < 1.05 * memory["activations"]
    else:
        assert found == pytest.approx(memory["activations"], rel=0.03)


def test_what_takes_memory_and_time(no_clock: None) -> None:
    """Recomputing saves activations and costs a forward pass; weights, moments, averages add up."""
    plain = estimate("base", 5002, 4)
    less = estimate("base", 5002, 4, checkpointing=True, ema=True)
    assert less.memory["activations"] < 0.25 * plain.memory["activations"]
    assert less.memory["averaged weights"] == less.memory["weights"] == 4 * less.parameters
    assert plain.memory["AdamW's moments"] == 8 * plain.parameters
    assert plain.memory_bytes <= sum(plain.memory.values())
    assert plain.step_seconds == pytest.approx(8 * 3.0 + 1e-9 * plain.parameters)
    assert less.step_seconds == pytest.approx(plain.step_seconds + 8 * 0.75)
    more = estimate("base", 5002, 4, besides=Besides(flops=plain.flops, activations=1 << 30))
    assert more.flops == 2 * plain.flops
    assert more.memory["activations"] - plain.memory["activations"] == 1 << 30
    assert "memory: peak of a step" in str(plain)
    assert plain.as_dict()["parameters"] == plain.parameters


@pytest.mark.parametrize("name", ["sdpa", "sparse"])
def test_time_is_predicted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within half, on a machine that does other things too; the benchmark holds it to 15 %."""
    monkeypatch.setattr(rates, "clock", time.process_time)
    model = encoder(name)
    state = torch.random.get_rng_state()
    predicted = estimate(
        PRESET, T, B, attention=name, pattern=model.pattern(T, torch.device("cpu"))
    ).step_seconds
    assert torch.equal(torch.random.get_rng_state(), state)
    optimizer = torch.optim.AdamW(model.parameters())
    times = []
    for _ in range(6):
        start = time.process_time()
        model(torch.randn(B, T, 64)).square().mean().backward()
        optimizer.step()
        times.append(time.process_time() - start)
    assert 0.5 < predicted / min(times) < 2
