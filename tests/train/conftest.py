"""Runs to train in, and processes to kill, forked from one interpreter that has torch already."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import PATIENCE
from vcell.runs import Run

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: threads that wait for each other are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[str], Run]:
    """Make an empty run of a given name."""
    return lambda name: Run.create(tmp_path / name, "train-toy")


@dataclass
class Processes:
    """Ranks of one training, forked and not yet waited for."""

    zygote: subprocess.Popen[str]
    pids: list[int]
    folder: Path  # of results and messages

    def kill(self, number: signal.Signals, rank: int = 0) -> None:
        os.kill(self.pids[rank], number)

    def wait(self) -> list[int]:
        """Return the exit codes, negative for signals."""
        assert self.zygote.stdout is not None
        return json.loads(self.zygote.stdout.readline())

    def results(self) -> list[dict[str, Any]]:
        codes = self.wait()
        assert codes == [0] * len(codes), self.messages()
        return [
            json.loads((self.folder / f"result-{rank}.json").read_text())
            for rank in range(len(codes))
        ]

    def messages(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("stderr-*")))


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    """The interpreter that all training processes are forked from."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(HERE / "toy.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(PATIENCE)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def start(zygote: subprocess.Popen[str], tmp_path: Path) -> Callable[..., Processes]:
    """Start training the toy in `run`, in one process or several."""

    def begin(
        run: Run, options: dict[str, Any], *, ranks: int = 1, task: dict[str, Any] | None = None
    ) -> Processes:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        order = {
            "run": str(run.path),
            "options": options,
            "task": task or {},
            "ranks": ranks,
            "port": port,
            "folder": str(tmp_path),
        }
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        print(json.dumps(order), file=zygote.stdin, flush=True)
        return Processes(zygote, json.loads(zygote.stdout.readline()), tmp_path)

    return begin


def tensors(run: Run, step: int) -> dict[str, Tensor]:
    """Everything that a checkpoint holds in safetensors, by file and name."""
    folder = run.checkpoint(step).path
    return {
        f"{path.stem}:{name}": tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def differences(a: Run, b: Run, step: int) -> dict[str, float]:
    """How far apart two runs' checkpoints are, tensor by tensor, where they differ at all."""
    left, right = tensors(a, step), tensors(b, step)
    assert left.keys() == right.keys()
    return {
        name: float((left[name].double() - right[name].double()).abs().max())
        for name in left
        if not torch.equal(left[name], right[name])
    }


def losses(run: Run) -> list[tuple[int, float]]:
    """The loss of every step, as the events tell it."""
    return [(event["step"], event["loss"]) for event in run.events(["metric"])]
