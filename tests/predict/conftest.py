"""A small simulated screen and runs trained on it, for all tests of the area."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vcell.cli import run


@pytest.fixture(scope="session")
def runs(cells, tmp_path_factory) -> Path:
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    assert run(["train-vcc", str(cells), "--runs", str(folder), "--model", "ridge"]) == 0
    return folder


@dataclass
class Said:
    """The outcome of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def predict(runs, capsys):
    """Run `vcell predict` on the trained run, or on those named."""

    def call(*words, of=("latest",)) -> Said:
        capsys.readouterr()
        command = ["predict", *of, "--runs", str(runs), "-o", "p.h5ad", "--overwrite", "--json"]
        command += map(str, words)
        code = run(command)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


@pytest.fixture(autouse=True)
def _alone(alone, monkeypatch):
    """Run every test in an empty folder, without vcell's variables."""
    for name in [name for name in os.environ if name.startswith("VCELL")]:
        monkeypatch.delenv(name)
