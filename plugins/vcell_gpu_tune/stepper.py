"""Repeat the training step of a run, with the run's worker on a copy of its directory.

This module depends on no plugin. The copy has no checkpoints, does not validate or save, and runs
until it is stopped. Steps are counted by its events, as in the monitor.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vcell.errors import RunFailed, UserError
from vcell.runs.history import History

if TYPE_CHECKING:
    from vcell.runs import Run

_LEFT_OUT = shutil.ignore_patterns(
    "ckpt", "events.jsonl", "rank-*.jsonl", "logs", "control", "*.html"
)
_ENDLESS = {"max_steps": 1_000_000_000, "validate_every": 0, "checkpoint_every": 0, "patience": 0}
_START = 1800.0  # seconds until the first step, including the preparation of data
_POLL = 0.1


class Stepper:
    """Trains on one GPU until it is closed."""

    def __init__(self, run: Run, uuid: str) -> None:
        if not run.meta.get("worker"):
            raise UserError(
                f"{run.name} has no training step: its model is fitted in one go",
                hint="name a run that trained a network",
            )
        self._folder = tempfile.TemporaryDirectory(prefix="vcell-gpu-tune-")
        copy = Path(self._folder.name) / run.name
        shutil.copytree(run.path, copy, ignore=_LEFT_OUT)
        meta = json.loads((copy / "run.json").read_text())
        meta["config"] |= {key: value for key, value in _ENDLESS.items() if key in meta["config"]}
        for key in ("ended", "summary", "process"):
            meta.pop(key, None)
        meta |= {"status": "running", "world_size": 1}
        (copy / "run.json").write_text(json.dumps(meta))
        self.history = History(copy, ranks=False)
        self._log = (copy / "stepper.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vcell.launch.worker", str(copy)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": uuid},
        )

    @property
    def pid(self) -> int:
        """The id of the worker process."""
        return self._process.pid

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START
        while self.steps() == 0:
            self._alive()
            if time.monotonic() > deadline:
                raise RunFailed(f"no step was taken within {_START:g} s")
            time.sleep(_POLL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def steps(self) -> int:
        """Return the number of steps so far."""
        self.history.read()
        return len(self.history.table("metric"))

    def seconds_a_step(self, since: int) -> float:
        """Return the mean seconds of the steps after the first `since`."""
        times: Any = self.history.table("metric").times
        return float((times[-1] - times[since - 1]) / (len(times) - since))

    def _alive(self) -> None:
        if self._process.poll() is not None:
            output = (self.history.path / "stepper.log").read_text(errors="replace").strip()
            last = output.splitlines()[-1] if output else f"code {self._process.returncode}"
            raise RunFailed(f"the training step could not be repeated: {last}")

    def wait(self, seconds: float, fewest: int) -> int:
        """Wait for a time and a number of steps; return the number of steps taken."""
        first, started = self.steps(), time.monotonic()
        while time.monotonic() - started < seconds or self.steps() - first < fewest:
            self._alive()
            time.sleep(_POLL)
        return self.steps() - first
