"""Small files of every kind, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vcell.data.simulate import SimulationDesign, Simulator

if TYPE_CHECKING:
    from tests.support import Ran


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with simulated cells, cells.h5ad."""
    folder = tmp_path_factory.mktemp("made")
    Simulator(SimulationDesign(cells=200, genes=120, perturbations=6)).write(folder / "cells.h5ad")
    return folder


@pytest.fixture
def here(vcell, made, tmp_path) -> Callable[..., Ran]:
    """Run vcell in a folder of its own that holds cells.h5ad."""
    for name in ("cells.h5ad", "cells.truth.npz"):
        shutil.copy(made / name, tmp_path / name)
    return vcell
