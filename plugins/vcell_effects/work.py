"""Implementation of `vcell effects`: measure the effects, write them and print a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console, outputs
from vcell.errors import UserError
from vcell.screen.measured_effects import of_cells

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_effects import EffectsOptions


def run(cells: Path | None, config: EffectsOptions) -> None:
    """Measure the effects, write them and print a summary."""
    path, out = cells or config.cells, config.output
    if path is None:
        raise UserError("no cells to measure", hint="vcell effects cells.h5ad -o effects.parquet")
    outputs.check(out, inputs=[path], overwrite=config.overwrite, suffixes=(".parquet",))
    effects, about = of_cells(
        path, config, min_cells=config.min_cells, target_sum=config.target_sum, join=config.join
    )
    z = np.abs(effects.effect) / np.maximum(effects.error, 1e-12)
    strong = (z > _STRONG).sum(axis=1)
    order = np.argsort(-strong, kind="stable")[:_SHOWN]
    table = [
        [effects.perturbations[i], effects.contexts[i], int(effects.cells[i]), int(strong[i])]
        for i in order
    ]
    facts = {"perturbations": len(effects.cells), "genes": len(effects.genes)}
    text = (
        f"{console.count(len(effects.cells), 'effect')} on "
        f"{console.count(len(effects.genes), 'gene')}\n\n"
        + console.table(
            table, ("perturbation", "context", "cells", f"genes beyond {_STRONG} errors")
        )
    )
    with console.printed_if_lost({"output": None, **facts}, text):
        effects.write(out, about)
    console.result({"output": str(out), **facts}, f"{out}: {text}")


_STRONG, _SHOWN = 5, 10  # standard errors; rows of the printed table
