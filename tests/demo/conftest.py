"""A small simulated screen, and a run trained on it, for all tests of the area."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vcell.cli import run
from vcell.data.simulate import Simulator

SIZE = {"cells": 2600, "genes": 300, "perturbations": 34, "batches": 2, "umis": 3000.0}


@pytest.fixture(scope="session")
def simulator() -> Simulator:
    return Simulator(**SIZE, seed=1)


@pytest.fixture(scope="session")
def cells(simulator, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    simulator.write(path)
    return path


@pytest.fixture(scope="session")
def runs(cells, tmp_path_factory) -> Path:
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    code = run(["train-vcc", str(cells), "--runs", str(folder), "--model", "gp"])
    assert code == 0
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(alone, monkeypatch):
    for name in [name for name in os.environ if name.startswith("VCELL")]:
        monkeypatch.delenv(name)
