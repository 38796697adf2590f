"""A small simulated screen, and a run trained on it, for all tests of the area."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vcell.cli import run


@pytest.fixture(scope="session")
def runs(cells, tmp_path_factory) -> Path:
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    code = run(["train-vcc", str(cells), "--runs", str(folder), "--model", "gp"])
    assert code == 0
    return folder


@pytest.fixture(autouse=True)
def _alone(alone, monkeypatch):
    """Run every test in an empty folder, without vcell's variables."""
    for name in [name for name in os.environ if name.startswith("VCELL")]:
        monkeypatch.delenv(name)
