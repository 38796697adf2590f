"""Simulated patients, and the command line in this process."""

from __future__ import annotations

import contextlib
import io

import anndata
import pytest

from tests.support import Ran
from vcell import cli, console
from vcell.data import open_cells
from vcell.patients import cohort as cohorts
from vcell.patients.communication import read_pairs
from vcell.patients.simulate import PatientDesign, write

COLUMNS = cohorts.PatientColumns("patient", "outcome", "cell_type", "batch")
SMALL = PatientDesign(patients=24, cells=40, types=4, genes=150, pairs=5, library=400.0)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with cells.h5ad and pairs.csv of 24 simulated patients."""
    folder = tmp_path_factory.mktemp("patients")
    write(SMALL, folder / "cells.h5ad", folder / "pairs.csv")
    return folder


@pytest.fixture(scope="session")
def cohort(home):
    with open_cells(home / "cells.h5ad") as source:
        who = cohorts.members(source, COLUMNS)
        return cohorts.read(source, who, read_pairs(home / "pairs.csv", source.genes))


@pytest.fixture(scope="session")
def cells(home):
    return anndata.read_h5ad(home / "cells.h5ad")


@pytest.fixture
def here(home, monkeypatch):
    """Run the command line in this process, in the folder of the cells."""
    monkeypatch.chdir(home)

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        before, console.settings = console.settings, console.Settings()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.run([str(word) for word in words])
        finally:
            console.settings = before
        return Ran(code, out.getvalue(), err.getvalue())

    return run


QUICK = (
    "--cell-type-column", "cell_type", "--steps", "25", "--axes", "5", "--members", "1",
    "--folds", "3", "--inner-folds", "2",
)  # fmt: skip
