"""A small sparse encoder trained through vcell.train; as a program, by two forked processes.

``python tests/nn/two.py RUN STRATEGY RUN STRATEGY ...`` takes one after the other.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcell.nn.encoder import Encoder
from vcell.nn.patterns import Graph
from vcell.nn.presets import Preset
from vcell.runs import Run
from vcell.train.loop import Trainer
from vcell.train.options import TrainOptions

if TYPE_CHECKING:
    from vcell.train.task import Place

PRESET = Preset(d_model=16, n_layers=2, n_heads=4, d_ff=32, dropout=0.0)


class Batches:
    """Random tokens by step; each process takes its share of the rows."""

    def __init__(self, place: Place) -> None:
        self.place, self.step = place, 0

    def __next__(self) -> Tensor:
        self.step += 1
        tokens = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(self.step))
        return tokens.chunk(self.place.world_size)[self.place.rank]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


class Backwards:
    """Return the tokens in reverse."""

    monitor, higher_is_better = "loss", False
    identity: dict[str, Any] = {}

    def build(self) -> nn.Module:
        return Encoder(PRESET, "sparse", graph=Graph.band(10, 2))

    def batches(self, place: Place) -> Batches:
        return Batches(place)

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (model(batch) - batch.flip(1)).square().mean(), {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": 0.0}


def train(run: Run, parallel: Any) -> None:
    """Take five steps, recomputing activations."""
    options = TrainOptions(
        batch_size=4, max_steps=5, lr=0.01, parallel=parallel, checkpoint_activations=True
    )
    Trainer(Backwards(), options, run).fit()


def main() -> None:
    """Be two ranks."""
    runs = list(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    ports = []
    for _ in runs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    children = []
    for rank in ("0", "1"):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
            for (path, parallel), port in zip(runs, ports, strict=True):
                os.environ["MASTER_PORT"] = port
                train(Run.open(Path(path)), parallel)
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
