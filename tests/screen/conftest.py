"""A small simulated screen for all tests of the area."""

from __future__ import annotations

import pytest

from vcell.data.simulate import Simulator


@pytest.fixture(scope="session")
def simulator() -> Simulator:
    return Simulator(cells=2600, genes=300, perturbations=34, batches=2, umis=3000.0, seed=1)
