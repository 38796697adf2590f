"""A small task: an MLP that learns a noisy teacher, with dropout, a mid-epoch sampler and metrics.

As a program it is the worker of the tests that need processes of their own:
``python toy.py RUN '{"max_steps": 20}' '{"dropout": 0.0}'``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcell.train.stream import ReadAhead, Shuffled

if TYPE_CHECKING:
    from vcell.train.task import Batches, Place

N, INPUTS, HIDDEN = 103, 6, 8  # 103 examples: epochs end inside batches


class Network(nn.Module):
    """Two hidden blocks with dropout and a batch-independent buffer."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout))
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(hidden)
        self.last = nn.Linear(hidden, 1)
        self.register_buffer("scale", torch.full((), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x * self.scale)
        for block in self.blocks:
            x = x + block(x)
        return self.last(self.norm(x)).squeeze(-1)


class Toy:
    """The task; every keyword is something a test wants to disturb."""

    monitor = "mse"
    higher_is_better = False

    def __init__(
        self,
        *,
        seed: int = 0,
        batch_size: int = 16,
        hidden: int = HIDDEN,
        dropout: float = 0.1,
        read_ahead: bool = True,
        slow: float = 0.0,
    ) -> None:
        draw = torch.Generator().manual_seed(1)
        self.x = torch.randn(N, INPUTS, generator=draw)
        self.y = self.x.prod(1).tanh() + 0.1 * torch.randn(N, generator=draw)
        self.seed, self.batch_size, self.hidden = seed, batch_size, hidden
        self.dropout, self.read_ahead, self.slow = dropout, read_ahead, slow
        self.identity: Mapping[str, Any] = {"dropout": dropout}

    def build(self) -> nn.Module:
        return Network(self.hidden, self.dropout)

    def batches(self, place: Place) -> Batches:
        stream = Shuffled(
            N,
            lambda rows: {"x": self.x[rows], "y": self.y[rows]},
            place=place,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        return ReadAhead(stream) if self.read_ahead else stream

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        time.sleep(self.slow)
        error = model(batch["x"]) - batch["y"]
        return error.square().mean(), {"mae": error.detach().abs().mean()}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        error = model(self.x) - self.y
        return {"mse": float(error.square().mean()), "mae": float(error.abs().mean())}


def main() -> None:
    """Train the toy in a run directory made by the test."""
    from vcell.runs import Run
    from vcell.train.loop import Trainer
    from vcell.train.options import TrainOptions

    options = TrainOptions(**json.loads(sys.argv[2]))
    extra = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    task = Toy(seed=options.seed, batch_size=options.batch_size, **extra)
    result = Trainer(task, options, Run.open(Path(sys.argv[1])), device="cpu").fit()
    print(json.dumps(vars(result)))


if __name__ == "__main__":
    main()
