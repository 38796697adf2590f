"""The networks of train-vcc on two gloo ranks, for every setting that changes what takes part.

    python two_ranks.py FOLDER      leaves the weights after a few steps, one file for each setting

Forked from one interpreter that has torch already; the settings one after the other.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.network.rehearsal import SyntheticTask
from vcell_train_vcc.network.shape import NetworkShape

from vcell.nn.attention import AttentionChoice
from vcell.train import parallel, precision
from vcell.train.optim import Averaged, build_optimizer
from vcell.train.prepare import build
from vcell.train.state import Learner, named_tensors
from vcell.train.update import Updater

if TYPE_CHECKING:
    from vcell.train.task import Place

GENES, SETS, STEPS = 24, 6, 4
ALL = {"alpha": 1.0, "beta": 0.5, "delta_loss": 1.0, "pds_loss": 0.1, "set_loss": "energy"}
NONE = {"alpha": 0.0, "beta": 0.0, "delta_loss": 0.0, "pds_loss": 0.0, "set_loss": "none"}


def settings() -> dict[str, dict[str, Any]]:
    """Every setting by name; `kind`, `attention` and `parallel` beside those of TrainVcc."""
    found: dict[str, dict[str, Any]] = {"all losses": {}}
    for name, value in ALL.items():
        found[f"without {name}"] = {name: NONE[name]}
        found[f"only {name}"] = {**NONE, name: value}
    for kind in ("transformer", "shared-encoder"):
        found[f"{kind}, adaptive"] = {"kind": kind, "loss": "adaptive"}
        found[f"{kind}, only beta"] = {"kind": kind, **NONE, "beta": 0.5}
        found[f"{kind}, beta 0"] = {"kind": kind, "beta": 0.0}
        found[f"{kind}, recomputed"] = {"kind": kind, "checkpoint_activations": True}
    found["several pseudo-cells"] = {"pseudo": 2, "beta": 0.0}
    found["mmd"] = {"set_loss": "mmd", "beta": 0.0}
    for name in ("sparse", "linear", "local", "chunked"):
        found[f"{name}, beta 0"] = {"attention": name, "beta": 0.0}
    for name in ("all losses", "without beta", "only beta", "shared-encoder, beta 0"):
        found[f"fsdp, {name}"] = found[name] | {"parallel": "fsdp"}
    found["fsdp, adaptive"] = {"loss": "adaptive", "parallel": "fsdp", "beta": 0.0}
    found["fsdp, recomputed"] = {"checkpoint_activations": True, "parallel": "fsdp", "beta": 0.0}
    return found


def train(place: Place, wanted: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Take some steps; return the weights, the losses of the steps as `losses`, what was told."""
    words = dict(wanted)
    kind, attention = words.pop("kind", "transformer"), words.pop("attention", "sdpa")
    config = TrainVcc(
        **ALL | {"batch_size": SETS, "set_size": 4, "dropout": 0.0, "ema": 0.9, "lr": 0.01} | words
    )
    tokens = tuple(f"g{i}" for i in range(GENES))
    shape = NetworkShape(kind, "tiny", 0.0, tokens, ((GENES, 0),))
    task: Any = SyntheticTask(shape, config, AttentionChoice(attention, "as requested"))
    told: list[str] = []
    model, called = build(task, config, place, told.append)
    learner = Learner(model, build_optimizer(model, config, place.device), Averaged(model, 0.9))
    exact = precision.resolve("fp32", place.device)
    update = Updater(task, learner, called, config, place, exact, told.append)
    model.train()
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        batch = {k: v.chunk(place.world_size)[place.rank] for k, v in task.batch(SETS).items()}
        sure = parallel.agree([int(update.proven)])[0] == place.world_size
        outcome = update(batch, total=SETS, overlap=sure, rate=0.01)
        losses.append([outcome.metrics["loss"], outcome.gradient_norm])
    if not update.proven:
        told.append("never sure of memory")
    return {**whole(model), "losses": torch.tensor(losses)}, told


def whole(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, tensor in named_tensors(model).items():
        full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        found[name] = full.detach().clone().contiguous()
    return found


def be(rank: int, port: int, folder: Path) -> None:
    """Be one rank through all settings."""
    os.dup2(os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with parallel.joined("cpu") as place:
        for number, wanted in enumerate(settings().values()):
            weights, told = train(place, wanted)
            assert not told, (wanted, told)
            if rank == 0:
                save_file(weights, folder / f"{number}.safetensors")


def main() -> None:
    folder = Path(sys.argv[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in (0, 1):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                be(rank, port, folder)
                code = 0
            finally:
                if code:
                    import traceback

                    traceback.print_exc()
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
