"""A small project as after an hour of work: cells, a project file, two runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from vcell import console
from vcell.cli import run
from vcell.data.simulate import SimulationDesign, Simulator


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("journeys")
    Simulator(SimulationDesign(cells=900, genes=200, perturbations=20)).write(folder / "cells.h5ad")
    shutil.copy(folder / "cells.h5ad", folder / "ünïcode.h5ad")
    (folder / "vcell.toml").write_text(
        '[data]\ncells = "cells.h5ad"\nbatch-column = "batch"\n[train-vcc]\nruns = "out/runs"\n'
        'model = "ridge"\n'
    )
    before, settings = Path.cwd(), console.settings
    for name in [name for name in os.environ if name.startswith("VCELL")]:
        del os.environ[name]
    os.chdir(folder)
    console.settings = console.Settings()
    try:
        for name, seed in (("first", "0"), ("second", "1")):
            assert run(["train-vcc", "--quiet", "--seed", seed]) == 0
            (newest,) = {p.name for p in (folder / "out/runs").iterdir()} - {"first", "second"}
            (folder / "out/runs" / newest).rename(folder / "out/runs" / name)
    finally:
        os.chdir(before)
        console.settings = settings
    return folder


@pytest.fixture
def project(_made, tmp_path) -> Path:
    """A copy of the project to work in."""
    shutil.copytree(_made, tmp_path / "project")
    return tmp_path / "project"
