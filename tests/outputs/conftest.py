"""Small files of every kind, created once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest

from vcell.data.simulate import SimulationDesign, Simulator
from vcell.geneformer.vocabulary import shipped
from vcell.patients.simulate import PatientDesign, write

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
    """Run vcell in a separate folder with cells.h5ad."""
    for name in ("cells.h5ad", "cells.truth.npz"):
        shutil.copy(made / name, tmp_path / name)
    return vcell


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder with small files of every kind."""
    place = tmp_path_factory.mktemp("ends")
    Simulator(SimulationDesign(cells=400, genes=120, perturbations=12)).write(place / "cells.h5ad")
    write(PatientDesign(patients=8, cells=20, types=3, genes=60), place / "patients.h5ad")
    cells = anndata.read_h5ad(place / "cells.h5ad")
    np.savetxt(place / "genes.csv", np.array(cells.var_names), fmt="%s")
    some = cells[:6, :40].copy()
    some.var_names = [str(one) for one in shipped("V1").ids[2:42]]
    some.write_h5ad(place / "ensembl.h5ad")
    (place / "genes.txt").write_text("\n".join(some.var_names[:2]) + "\n")
    (place / "sets.gmt").write_text(
        "".join(f"s{i}\t-\tA{i}\tB{i}\tC{i % 3}\tD{i % 2}\n" for i in range(60))
    )
    genes = [f"g{i}" for i in range(40)]
    (place / "edges.tsv").write_text(
        "gene_1\tgene_2\tweight\n"
        + "".join(
            f"{genes[i]}\t{genes[(i * 7 + k) % 40]}\t1.5\n" for i in range(40) for k in (1, 2)
        )
    )
    (place / "sets.tsv").write_text(
        "gene_1\tgene_2\tgene_3\tvalue\n"
        + "".join(
            f"{genes[i]}\t{genes[i + 1]}\t{genes[(i + k) % 40]}\t{(i * k) % 7 / 7}\n"
            for i in range(12) for k in range(3, 23)
        )
    )  # fmt: skip
    return place
