"""Fixtures shared by tests of train-vcc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from vcell_train_vcc import report

from vcell.data.simulate import Simulator


@pytest.fixture(autouse=True)
def _alone(alone):
    """Run every test in an empty folder."""


@pytest.fixture(scope="session")
def cells(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=600, genes=80, perturbations=15, umis=800.0, seed=1).write(path)
    return path


@pytest.fixture
def cache(monkeypatch, tmp_path_factory) -> None:
    """Share stores between tests."""
    folder = tmp_path_factory.getbasetemp() / "train-vcc-cache"
    monkeypatch.setenv("VCELL_CACHE", str(folder))


@pytest.fixture
def one_thread(cache) -> Iterator[None]:
    """Compute with one thread: threads that wait for each other are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def second_interrupted(monkeypatch):
    """Interrupt the scoring of the second run from now on; return the runs' names."""

    def begin():
        calm, names = report.scored, []

        def interrupted(*given):
            names.append(given[0].name)
            if len(names) == 2:
                raise KeyboardInterrupt
            return calm(*given)

        monkeypatch.setattr(report, "scored", interrupted)
        return names

    return begin
