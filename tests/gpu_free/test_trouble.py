"""What only a GPU raises: memory that runs out anywhere, compilers that fail, devices that die."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.conftest import differences
from tests.train.toy import Toy, fit
from vcell.errors import RunFailed
from vcell.gpu import accelerator
from vcell.nn import distances, rates
from vcell.nn.distances import taxicab
from vcell.nn.presets import PRESETS
from vcell.runs import Run
from vcell.train import rng, trouble
from vcell.train.optim import build_optimizer
from vcell.train.options import TrainOptions

CPU = torch.device("cpu")
NewRun = Callable[[str], Run]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    return lambda name: Run.create(tmp_path / name, "train-toy")


def raised(error: BaseException, where: str = "a_model") -> BaseException:
    """The error as it comes out of a module of some name."""
    names: dict[str, Any] = {"error": error, "__name__": where}
    with pytest.raises(type(error)) as caught:
        exec("def fail():\n    raise error\nfail()", names)
    return caught.value


def of(module: str, name: str, base: type[BaseException] = Exception) -> BaseException:
    return type(name, (base,), {"__module__": module})("ptxas fatal: Unresolved extern function")


def wrapped(cause: BaseException) -> BaseException:
    error = RuntimeError("backend failed")
    error.__cause__ = cause
    return error


# --- which error means what


@pytest.mark.parametrize(
    "error",
    [
        of("triton.runtime.errors", "PTXASError"),
        of("triton.runtime.errors", "OutOfResources"),
        of("triton.compiler.errors", "CompilationError"),
        of("torch._inductor.exc", "InductorError", RuntimeError),
        of("torch._dynamo.exc", "BackendCompilerFailed", RuntimeError),
        wrapped(of("triton.runtime.errors", "PTXASError")),
        raised(subprocess.CalledProcessError(1, ["ptxas"]), "triton.backends.nvidia.compiler"),
        raised(FileNotFoundError("gcc"), "torch._inductor.cpp_builder"),
        raised(ImportError("libcuda.so"), "triton.runtime.driver"),
    ],
    ids=str,
)
def test_a_compilers_error_is_known_whoever_raises_it(error: BaseException) -> None:
    assert trouble.is_compilers(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        raised(subprocess.CalledProcessError(1, ["ls"])),
        raised(FileNotFoundError("cells.h5ad")),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=str,
)
def test_a_models_own_error_is_no_compilers(error: BaseException) -> None:
    assert not trouble.is_compilers(error)


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True, False),
        (MemoryError(), True, False),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("shapes differ"), False, False),
        (ValueError("out of memory, it says"), False, False),
    ],
    ids=str,
)
def test_memory_and_device(error: BaseException, memory: bool, device: bool) -> None:
    assert trouble.is_out_of_memory(error) == memory
    assert trouble.is_devices(error) == device


# --- what training does about it


def fails(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, when: Any) -> None:
    """Have a method of the toy raise where `when(self, first argument)`."""
    real = getattr(Toy, name)

    def method(self: Toy, *words: Any) -> Any:
        if when(self, *words):
            raise error
        return real(self, *words)

    monkeypatch.setattr(Toy, name, method)


def test_memory_that_torch_did_not_hand_out_is_halved_for_too(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, short = new_run("plain"), new_run("short")
    fit(plain, {"max_steps": 5}, dropout=0.0)
    error = torch.AcceleratorError("CUDA error: out of memory")
    fails(monkeypatch, "loss", error, lambda _self, _model, batch: len(batch["x"]) > 4)
    fit(short, {"max_steps": 5}, dropout=0.0)
    assert "out of memory with 8 examples at a time: going on with 4" in capsys.readouterr().err
    assert max(differences(plain, short, 5).values(), default=0.0) < 1e-5


def test_a_lost_device_is_no_bug_of_ours(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nmore")
    fails(monkeypatch, "loss", error, lambda self, *_: self.calls == 3)
    with pytest.raises(RunFailed, match="the device failed while computing gradients") as caught:
        fit(new_run("run"), {})
    assert "nvidia-smi" in (caught.value.hint or "")


def test_memory_that_runs_out_in_validation_makes_it_smaller(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Toy, "validation_batch", 16, raising=False)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    fails(monkeypatch, "validate", error, lambda self, *_: self.validation_batch > 4)
    result = fit(new_run("run"), {"max_steps": 3})
    assert result.ended == "done"
    said = capsys.readouterr().err
    assert "out of memory while validating 8 at a time: going on with 4" in said
    fails(monkeypatch, "validate", error, lambda *_: True)
    with pytest.raises(RunFailed, match="out of memory while validating"):
        fit(new_run("another"), {"max_steps": 3})


def test_memory_that_runs_out_while_preparing_or_applying_is_told(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    with monkeypatch.context() as patch:
        fails(patch, "build", error, lambda *_: True)
        with pytest.raises(RunFailed, match="while preparing the model") as caught:
            fit(new_run("large"), {})
        assert "fsdp" in (caught.value.hint or "")
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(RunFailed, match="out of memory while applying gradients"):
        fit(new_run("later"), {})


def test_the_optimisers_memory_is_taken_before_the_first_step_and_changes_nothing() -> None:
    torch.manual_seed(0)
    options = TrainOptions(lr=0.1, weight_decay=0.2)
    ours, theirs = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    theirs.load_state_dict(ours.state_dict())
    made = build_optimizer(ours, options, CPU)
    assert all({"step", "exp_avg", "exp_avg_sq"} == state.keys() for state in made.state.values())
    groups = [
        {"params": [theirs.weight], "weight_decay": 0.2},
        {"params": [theirs.bias], "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=0.1, fused=True)
    for step in range(3):
        for model, optimizer in ((ours, made), (theirs, plain)):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert made.state[ours.weight]["step"] == 3


# --- generators of the device


class WithGenerator(accelerator.Accelerator):
    """A device with a generator of its own, which every wait moves."""

    state = torch.tensor([5], dtype=torch.uint8)

    def synchronise(self) -> None:
        WithGenerator.state = WithGenerator.state + 1

    def random_state(self) -> torch.Tensor:
        return WithGenerator.state.clone()

    def set_random_state(self, state: torch.Tensor) -> None:
        WithGenerator.state = state.clone()


@pytest.fixture
def with_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    WithGenerator.state = torch.tensor([5], dtype=torch.uint8)
    monkeypatch.setitem(accelerator.KINDS, "cuda", WithGenerator)
    monkeypatch.setitem(accelerator.KINDS, "cpu", WithGenerator)


@pytest.mark.usefixtures("with_generator")
def test_a_cpus_checkpoint_is_known_to_hold_no_state_of_a_gpu() -> None:
    cuda = torch.device("cuda")
    full = rng.decode(rng.encode(rng.capture(cuda)))
    WithGenerator.state = torch.tensor([9], dtype=torch.uint8)
    assert rng.restore(full, cuda)
    assert WithGenerator.state.tolist() == [5]
    without = {name: value for name, value in full.items() if name != "cuda"}
    assert not rng.restore(without, cuda)


def test_a_gpus_checkpoint_goes_on_on_a_cpu() -> None:
    state = rng.capture(CPU) | {"cuda": torch.zeros(16, dtype=torch.uint8)}
    assert rng.restore(rng.decode(rng.encode(state)), CPU)
    assert "cuda" not in rng.capture(CPU)


@pytest.mark.usefixtures("with_generator")
def test_resuming_says_that_the_gpus_numbers_start_afresh(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("run")
    with monkeypatch.context() as patch:
        patch.setitem(accelerator.KINDS, "cpu", accelerator.Accelerator)
        fit(run, {"max_steps": 3})
    fit(run, {"max_steps": 5})
    assert "the random numbers of the GPU are newly seeded" in capsys.readouterr().err


@pytest.mark.usefixtures("with_generator")
def test_measuring_rates_leaves_the_devices_generator_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SECONDS", 1e-4)
    rates.measure.cache_clear()
    rates.measure(PRESETS["tiny"], 16, 1, CPU, torch.float32, "sdpa", None)
    rates.measure.cache_clear()
    assert WithGenerator.state.tolist() == [5]


# --- memory of the retrieval loss


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made meanwhile has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.most = max(self.most, out.numel())
        return out


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_the_blocked_distance_has_cdists_gradient(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    draw = torch.Generator().manual_seed(0)
    bank = torch.randn(11, 7, generator=draw, dtype=torch.float64)
    effect = torch.cat([torch.randn(4, 7, generator=draw, dtype=torch.float64), bank[:2]])
    one, other = (effect.clone().requires_grad_() for _ in range(2))
    weight = torch.randn(6, 11, generator=draw, dtype=torch.float64)
    found, want = taxicab(one, bank), torch.cdist(other, bank, p=1)
    (found * weight).sum().backward()
    (want * weight).sum().backward()
    assert torch.equal(found, want)
    assert torch.allclose(one.grad, other.grad)  # ties at 0 have gradient 0 in both


def test_the_retrieval_loss_needs_no_array_of_examples_times_bank_times_genes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distances, "BLOCK", 20_000)
    effect, bank = torch.randn(8, 200, requires_grad=True), torch.randn(500, 200)
    with Largest() as seen:
        taxicab(effect, bank).square().sum().backward()
    assert seen.most <= 20_000  # and not 800,000
