"""A small task: an MLP that learns a noisy teacher, with dropout, a mid-epoch sampler and metrics.

As a program it forks processes that train it, for the tests that need some to kill.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcell.runs import Run
from vcell.train.loop import Result, Trainer
from vcell.train.options import TrainOptions
from vcell.train.stream import ReadAhead, ShuffledBatches
from vcell.train.task import Phase

if TYPE_CHECKING:
    from vcell.train.task import Batches, Place

N, INPUTS, HIDDEN = 103, 6, 8  # 103 examples: epochs end inside batches
DEFAULTS = {"batch_size": 16, "max_steps": 20, "warmup": 0.1, "lr": 0.01}


class Network(nn.Module):
    """Two hidden blocks with dropout and a batch-independent buffer."""

    def __init__(self, hidden: int, dropout: float, idle: str) -> None:
        super().__init__()
        if idle:
            self.idle = nn.Linear(1, 1, bias=False)
        self.needs_idle, self.calls = idle, 0
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
            self.halfway = x
            x = x + block(x)
        self.calls += self.training
        if self.needs_idle == "later" and self.calls < 5:
            x = x + self.idle.weight
        if self.needs_idle == "on one rank" and os.environ.get("RANK", "0") == "0":
            x = x + self.idle.weight
        return self.last(self.norm(x))


def run_out(_gradient: Tensor) -> None:
    """Do what the allocator of a GPU does when it is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


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
        fits: int = N,
        nan_at: tuple[int, ...] = (),
        scores: tuple[tuple[float, ...], ...] = (),
        phases: tuple[int, ...] = (),
        validates_first: bool = False,
        idle: str = "",
    ) -> None:
        draw = torch.Generator().manual_seed(1)
        self.x = torch.randn(N, INPUTS, generator=draw)
        self.y = self.x.prod(1).tanh() + 0.1 * torch.randn(N, generator=draw)
        self.seed, self.batch_size, self.hidden = seed, batch_size, hidden
        self.dropout, self.read_ahead, self.slow = dropout, read_ahead, slow
        self.fits, self.nan_at, self.scores = fits, nan_at, scores
        self.phases = [Phase(f"phase from {start}", start) for start in phases]
        self.validates_first, self.idle = validates_first, idle
        self.calls = self.validations = self.rank = 0
        self.identity: Mapping[str, Any] = {"dropout": dropout}

    def build(self) -> nn.Module:
        return Network(self.hidden, self.dropout, self.idle)

    def batches(self, place: Place) -> Batches:
        self.rank = place.rank
        stream = ShuffledBatches(
            N,
            lambda rows: {"x": self.x[rows], "y": self.y[rows]},
            place=place,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        return ReadAhead(stream) if self.read_ahead else stream

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        time.sleep(self.slow)
        self.calls += 1
        error = model(batch["x"])[:, 0] - batch["y"]
        if len(error) > self.fits:  # half the gradients are there when memory runs out
            getattr(model, "module", model).halfway.register_hook(run_out)
        if self.calls in self.nan_at:
            error = error * torch.nan
        return error.square().mean(), {"mae": error.detach().abs().mean()}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        error = model(self.x)[:, 0] - self.y
        self.validations += 1
        torch.rand(1), np.random.rand(), random.random()  # as sampled validations do
        if self.scores:
            return {"mse": self.scores[self.rank][self.validations - 1]}
        return {"mse": float(error.square().mean()), "mae": float(error.abs().mean())}


def fit(run: Run, options: dict[str, Any], **task: Any) -> Result:
    """Train the toy on the CPU."""
    settings = TrainOptions(**{**DEFAULTS, **options})
    toy = Toy(seed=settings.seed, batch_size=settings.batch_size, **task)
    return Trainer(toy, settings, run).fit()


def work(run: Run) -> None:
    """Be a process of the launcher."""
    fit(run, run.meta["config"], dropout=0.0)


def obey(order: dict[str, Any], rank: int) -> None:
    """Be one rank of an ordered training, in a process of its own."""
    folder = Path(order["folder"])
    os.dup2(os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if order["ranks"] > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(order["port"])}
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order["ranks"])}
        os.environ.update(address | place)
    result = fit(Run.open(Path(order["run"])), order["options"], **order["task"])
    (folder / f"result-{rank}.json").write_text(json.dumps(vars(result)))


def main() -> None:
    """Fork the processes that lines of JSON on stdin ask for; answer with pids, then exit codes."""
    for line in sys.stdin:
        order = json.loads(line)
        pids = []
        for rank in range(order["ranks"]):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    obey(order, rank)
                    code = 0
                except BaseException:  # noqa: BLE001 - the parent sees the exit code
                    traceback.print_exc()
                finally:
                    os._exit(code)
            pids.append(pid)
        print(json.dumps(pids), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
