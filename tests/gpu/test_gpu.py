"""What a real GPU has to show: values, copies, resuming, memory, and what the driver tells.

Written without a GPU, November 2026; where one was run on it is said in docs/gpus.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.store.conftest import make_screen
from tests.train.toy import Toy
from vcell.gpu.accelerator import accelerator
from vcell.gpu.agreement import ask_torch, disagreement
from vcell.gpu.nvml import devices
from vcell.gpu.reading import open_card
from vcell.nn.attention import attend
from vcell.runs import Run, Tail
from vcell.store import Loader, Output, Recipe, Shuffled, Store, prepare
from vcell.store.device import to_dense
from vcell.train.loop import Trainer
from vcell.train.options import TrainOptions

pytestmark = pytest.mark.gpu
BUSY = 200_000_000  # cycles for which a kernel keeps the GPU


class OnGpu(Toy):
    """The toy, with its validation on the GPU."""

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        where = next(model.parameters()).device
        error = model(self.x.to(where))[:, 0] - self.y.to(where)
        return {"mse": float(error.square().mean())}


def fit(folder: Path, **options: Any) -> Run:
    run = Run.create(folder, "train-toy")
    given = {"batch_size": 16, "max_steps": 20, "lr": 0.01} | options
    Trainer(OnGpu(dropout=0.0), TrainOptions(**given), run, device="cuda").fit()
    return run


def losses(run: Run) -> list[float]:
    return [event["loss"] for event in run.events(["metric"])]


def test_driver_and_torch_agree() -> None:
    assert disagreement(devices(), ask_torch()) == ("", "")


def test_the_card_of_the_first_device_is_found_by_its_uuid(device: torch.device) -> None:
    it = accelerator(device)
    with open_card(it.uuid) as card:
        found = card.read()
    assert found.memory_total_bytes is not None
    assert abs(found.memory_total_bytes - it.memory()[1]) < 0.1 * it.memory()[1]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_training_learns_what_a_cpu_learns(tmp_path: Path, precision: str) -> None:
    if precision in ("bf16", "tf32") and accelerator("cuda").capability < (8, 0):
        pytest.skip("needs Ampere")
    run = Run.create(tmp_path / "cpu", "train-toy")
    options = TrainOptions(batch_size=16, max_steps=20, lr=0.01, precision="fp32")
    Trainer(Toy(dropout=0.0), options, run, device="cpu").fit()
    found = losses(fit(tmp_path / "gpu", precision=precision))
    near = 1e-4 if precision == "fp32" else 0.05
    assert np.allclose(found, losses(run), atol=near)


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", ema=0.9, schedule="constant", warmup=0.0)
    words = {"ema": 0.9, "schedule": "constant", "warmup": 0.0}
    cut = fit(tmp_path / "cut", max_steps=9, **words)
    given = {"batch_size": 16, "max_steps": 20, "lr": 0.01} | words
    Trainer(OnGpu(dropout=0.0), TrainOptions(**given), cut, device="cuda").fit()
    assert np.allclose(losses(whole), losses(cut), atol=1e-5)


def test_a_cpus_run_goes_on_on_the_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(tmp_path, "train-toy")
    options = {"batch_size": 16, "lr": 0.01}
    Trainer(Toy(), TrainOptions(max_steps=5, **options), run, device="cpu").fit()
    Trainer(OnGpu(), TrainOptions(max_steps=9, **options), run, device="cuda").fit()
    assert "the random numbers of the GPU are newly seeded" in capsys.readouterr().err


def test_every_batch_arrives_whole_while_the_gpu_is_busy(tmp_path: Path) -> None:
    """Copies wait behind long kernels, and the loader fills its memory meanwhile."""
    screen = make_screen(tmp_path / "screen.h5ad", n=3000, g=400)
    prepare([screen.path], tmp_path / "store.zarr", Recipe())
    with Store.open(tmp_path / "store.zarr") as store:
        order = Shuffled(batch_size=64, buffer=256)
        for words in ({"dense": True}, {}):
            with Loader(store, order, Output(**words, own=True), resident=False) as loader:
                want = [to_dense(batch, "cpu") for batch in loader]
            with Loader(store, order, Output(**words, pin=True), resident=False) as loader:
                found = []
                for batch in loader:
                    torch.cuda._sleep(BUSY)
                    found.append(to_dense(batch, "cuda"))
                    del batch
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found, want, strict=True))


def test_memory_that_runs_out_halves_the_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hungry(OnGpu):
        def loss(self, model: torch.nn.Module, batch: Any) -> Any:
            free = accelerator("cuda").memory()[0]
            held = torch.empty(int(free * len(batch["x"]) / 10), dtype=torch.uint8, device="cuda")
            found = super().loss(model, batch)
            del held
            return found

    run = Run.create(tmp_path, "train-toy")
    options = TrainOptions(batch_size=16, max_steps=4, lr=0.01)
    Trainer(Hungry(dropout=0.0), options, run, device="cuda").fit()
    assert "out of memory with 16 examples at a time: going on with 8" in capsys.readouterr().err


@pytest.mark.parametrize("masked", [False, True])
def test_flash_attn_computes_what_torch_computes(masked: bool, device: torch.device) -> None:
    pytest.importorskip("flash_attn")
    q, k, v = torch.randn(3, 2, 4, 130, 32, device=device, dtype=torch.bfloat16)
    valid = None
    if masked:
        valid = torch.arange(130, device=device) < torch.tensor([[130], [71]], device=device)
    found, want = (attend(q, k, v, name=name, valid=valid) for name in ("flash", "sdpa"))
    seen = torch.ones(2, 130, dtype=torch.bool, device=device) if valid is None else valid
    at = seen[:, None, :, None].expand_as(found)
    assert torch.allclose(found[at].float(), want[at].float(), atol=2e-2)


def test_the_device_is_watched_while_it_trains(tmp_path: Path) -> None:
    run = fit(tmp_path)
    events = [e for e in Tail(run.path / "rank-0.jsonl").read() if e["kind"] == "gpu"]
    assert len(events) >= 2
    assert events[-1]["memory_bytes"] > 0


def test_spans_are_measured_by_the_gpu(tmp_path: Path) -> None:
    run = fit(tmp_path, max_steps=50)
    spans = [e for e in Tail(run.path / "rank-0.jsonl").read() if e["kind"] == "span"]
    assert len(spans) == 50
    for name in ("h2d", "forward", "backward", "optimiser"):
        assert 0 < sum(span.get(name, 0) for span in spans) < sum(e["seconds"] for e in spans)
