"""Generate the cells and print a summary."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from vcell import console, outputs
from vcell.data.simulate import CONTROL, SimulationDesign, Simulator
from vcell.data.simulate_file import ENDINGS, truth_path

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_simulate import Simulate


def run(out: Path, config: Simulate) -> None:
    """Write the cells, and the true effects next to them."""
    settings = asdict(config)
    compress, overwrite = settings.pop("compress"), settings.pop("overwrite")
    outputs.check(out, suffixes=ENDINGS, overwrite=overwrite)
    outputs.check(truth_path(out), overwrite=overwrite)
    simulator = Simulator(SimulationDesign(cells=settings.pop("n_cells"), **settings))
    design, started = simulator.design, time.monotonic()
    truth = simulator.write(out, compress=compress)
    took = time.monotonic() - started
    data = {
        "cells": str(out),
        "truth": str(truth),
        "n_cells": design.cells,
        "n_genes": design.genes,
        "controls": design.controls,
        "perturbations": design.perturbations,
        "null": design.nulls,
        "seconds": round(took, 2),
    }
    made = console.count(design.perturbations, "perturbation")
    console.result(
        data,
        f"{out}: {design.cells:,} cells x {design.genes:,} genes, {design.controls:,} of them "
        f"{CONTROL}, {made} ({design.nulls} without effect), "
        f"{console.bytes_text(_size(out))} in {console.duration(took)}\n"
        f"{truth}: the true effects",
    )


def _size(path: Path) -> int:
    """Return the bytes of a file or a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
