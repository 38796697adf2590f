"""Train the networks of train-vcc on the false device: build, step, validate, save, resume.

python -m tests.fake_cuda.steps PARTS      networks, precisions, losses; or fsdp
"""

from __future__ import annotations

import sys
from tempfile import TemporaryDirectory

from tests import fake_cuda

fake_cuda.load()

import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from vcell_train_vcc import TrainVcc  # noqa: E402
from vcell_train_vcc.network.rehearsal import SyntheticTask  # noqa: E402
from vcell_train_vcc.network.shape import NetworkShape  # noqa: E402
from vcell_train_vcc.network.task import added  # noqa: E402

from vcell.nn.attention import AttentionChoice, choose  # noqa: E402
from vcell.train import precision, rng, state  # noqa: E402
from vcell.train.optim import Averaged, build_optimizer  # noqa: E402
from vcell.train.prepare import build, set_up_device  # noqa: E402
from vcell.train.task import Place  # noqa: E402
from vcell.train.update import Updater  # noqa: E402

GENES, SETS = 24, 4
KINDS = ("transformer", "shared-encoder")
ATTENTIONS = ("flash", "sdpa", "chunked", "sparse", "linear", "local")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
LOSSES = {"alpha": 0.0, "beta": 0.0, "delta_loss": 0.0, "pds_loss": 0.0, "set_weight": 0.0}
DEVICE = torch.device("cuda", 0)
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def settings(part: str) -> Iterator[dict[str, Any]]:
    """The settings of a part of the test."""
    for kind in KINDS:
        if part == "networks":
            for attention in ATTENTIONS:
                for recomputed in (False, True):
                    yield {
                        "kind": kind,
                        "attention": attention,
                        "checkpoint_activations": recomputed,
                    }
            yield {"kind": kind, "attention": "flash", "deterministic": True}
        if part == "precisions":
            for name in PRECISIONS:
                for loss in ("combined", "adaptive"):
                    yield {"kind": kind, "precision": name, "loss": loss}
        if part == "losses":
            for name in LOSSES:
                yield {"kind": kind, name: 0.0}
                yield {"kind": kind, **LOSSES, name: 1.0}
            for set_loss in ("none", "mmd"):
                yield {"kind": kind, "set_loss": set_loss}
            yield {"kind": kind, "pseudo": 2, "micro_batch": 2}
        if part == "fsdp":
            for words in (
                {},
                {"checkpoint_activations": True},
                {"beta": 0.0},
                {"loss": "adaptive"},
            ):
                yield {"kind": kind, "parallel": "fsdp", **words}


def trained(wanted: dict[str, Any], place: Place) -> tuple[SyntheticTask, Updater]:
    """Take a step, and look at everything it leaves."""
    words = dict(wanted)
    kind, attention = words.pop("kind"), words.pop("attention", "sdpa")
    given = {"batch_size": SETS, "set_size": 4, "ema": 0.9, "lr": 0.01, "precision": "bf16"}
    config = TrainVcc(**given | {"set_loss": "energy"} | words)
    tokens = tuple(f"g{i}" for i in range(GENES))
    shape = NetworkShape(kind, "tiny", 0.1, tokens, ((GENES, 0),))
    task: Any = SyntheticTask(shape, config, AttentionChoice(attention, "as requested"))
    torch.use_deterministic_algorithms(False)
    if config.deterministic:
        set_up_device(config, place)
    batch = task.batch(SETS)
    told: list[str] = []
    with fake_cuda.device():
        exact = precision.resolve(config.precision, DEVICE)
        model, called = build(task, config, place, told.append)
        learner = state.Learner(
            model, build_optimizer(model, config, DEVICE), Averaged(model, config.ema)
        )
        update = Updater(task, learner, called, config, place, exact, told.append)
        seen: set[torch.dtype] = set()
        block = model.core.encoder.blocks[0]  # type: ignore[union-attr]
        block.attention.qkv.register_forward_hook(lambda *given: seen.add(given[2].dtype))
        model.train()
        update(batch, total=SETS * place.world_size, overlap=False, rate=0.01)
        assert seen == {HALF.get(config.precision, torch.float32)}, (wanted, seen)
        assert not told, (wanted, told)
        look(learner)
    return task, update


def look(learner: state.Learner) -> None:
    """All that lasts is on the device, in float32."""
    for name, p in learner.model.named_parameters():
        assert p.device == DEVICE, name
        assert p.dtype == torch.float32, name
        assert p.requires_grad == (p.grad is not None), name
        if p.grad is not None:
            assert (p.grad.device, p.grad.dtype) == (DEVICE, torch.float32), name
            for key, value in learner.optimizer.state[p].items():
                assert value.device == DEVICE, (name, key)
    for name, buffer in learner.model.named_buffers():
        assert buffer.device == DEVICE, name
    assert learner.averaged is not None
    assert {shadow.device for shadow in learner.averaged.shadow} == {DEVICE}


def asked_and_resumed(task: SyntheticTask, update: Updater) -> None:
    """Validate, write a checkpoint, and read it on the device and on the CPU."""
    learner, cpu = update.learner, torch.device("cpu")
    generators = rng.encode(rng.capture(cpu) | {"cuda": torch.zeros(16, dtype=torch.uint8)})
    state.parallel.gather_texts = lambda _: [generators]
    with fake_cuda.device(), torch.no_grad(), update.precision.autocast():
        learner.model.eval()
        assert learner.averaged is not None
        with learner.averaged.applied():
            example = task.tables.example(task.tables.learned[:5], GENES)
            found = added(learner.model, task.tables, example, GENES)
        assert found.shape == (5, GENES)
        shot = state.snapshot(learner, {"step": 2}, DEVICE, keep=True)
    for tensors in shot.tensors.values():
        for name, tensor in tensors.items():
            assert tensor.device == cpu, name
            tensors[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    with TemporaryDirectory() as folder:
        shot.write(Path(folder))
        state.load_weights(task.build(), Path(folder))
        saved = {path: load_file(path) for path in Path(folder).glob("*.safetensors")}
        state.load_file = lambda path: {  # reading a file makes a tensor that is not fake
            name: torch.empty(x.shape, dtype=x.dtype) for name, x in saved[path].items()
        }
        rng.restore, real = (lambda *_: True), rng.restore
        try:
            with fake_cuda.device():
                missing = state.restore(learner, Path(folder), Place(device=DEVICE))
                assert missing == "", missing
                batch = {k: torch.empty(v.shape, dtype=v.dtype) for k, v in task.batch(2).items()}
                update(batch, total=2, overlap=False, rate=0.01)
                look(learner)
        finally:
            rng.restore, state.load_file = real, load_file


def as_one_of_eight() -> Place:
    """Join a group whose collectives do nothing, as rank 5 of 8."""
    import torch.distributed as dist
    from torch.distributed import device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=5, world_size=8, store=FakeStore())
    mesh = device_mesh.init_device_mesh("cuda", (8,))
    device_mesh.init_device_mesh = lambda *_, **__: mesh
    return Place(5, 8, DEVICE)


def main() -> None:
    parts = sys.argv[1:]
    place = as_one_of_eight() if parts == ["fsdp"] else Place(device=DEVICE)
    sys.modules["flash_attn"] = fake_cuda.flash_attn()
    warnings.simplefilter("error")
    count = 0
    for part, wanted in ((name, one) for name in parts for one in settings(name)):
        try:
            task, update = trained(wanted, place)
            if part == "precisions" and (
                wanted["loss"] == "combined" or wanted["precision"] == "bf16"
            ):
                asked_and_resumed(task, update)
        except BaseException:
            print("failed:", wanted, file=sys.stderr)
            raise
        count += 1
        print(f"{time.process_time():.1f}", wanted)
    with fake_cuda.device():
        assert choose("auto", DEVICE, torch.bfloat16, n_tokens=99, head_dim=32).name == "flash"
        assert choose("auto", DEVICE, torch.float32, n_tokens=99, head_dim=32).name == "sdpa"
    print(count)


if __name__ == "__main__":
    main()
