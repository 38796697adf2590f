"""Hold out perturbations before training, with their cells in a separate file.

As in the challenge: training uses `learn.h5ad` and the list `held-out.csv`. `held-out.h5ad`, with
the same controls, is opened only for scoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.config import DataOptions
from vcell.data import CellWriter, detect, labels, open_cells
from vcell.data.log_cells import COUNTS, median_total
from vcell.data.simulate import Simulator, oracle
from vcell.errors import UserError
from vcell.screen.design import Design

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.labels import Labels
    from vcell_demo import Demo

SHARE = 0.2  # of the perturbations
_FEWEST = 10  # cells that a perturbation needs to be scored
LEARN, HELD_OUT, NAMES = "learn.h5ad", "held-out.h5ad", "held-out.csv"


def set_aside(cells: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Write the three files; return their paths and facts."""
    with open_cells(cells) as source:
        found = labels.find(source, DataOptions())
        named = {"perturbation_column": found.perturbation_column, "control": found.control}
        design = Design.of_source(source, named)
        held, counts = _chosen(source, design, seed)
        of_cell = design.rows(held, [0] * len(held)) >= 0
        written = {
            "learn": _copy(source, found, folder / LEARN, ~of_cell),
            "held_out": _copy(source, found, folder / HELD_OUT, of_cell | design.control),
        }
    rows = "".join(f"{name},{n}\n" for name, n in zip(held, counts, strict=True))
    outputs.write_text(folder / NAMES, f"target_gene,n_cells\n{rows}")
    console.say(f"set aside: {console.count(len(held), 'perturbation')}, named in {folder / NAMES}")
    # the scale for scoring: the median total of the real cells, if they are counts
    with open_cells(folder / HELD_OUT) as real:
        counted = detect.scale(real, quiet=True).kind == COUNTS
        total = median_total(real) if counted else None
    return written | {"perturbations": held, "cells": counts, "target_sum": total}


def _chosen(source: CellSource, design: Design, seed: int) -> tuple[list[str], list[int]]:
    """Draw held-out perturbations among those that can be predicted and scored."""
    codes, _, counts = design.pairs()
    size = {design.names[code]: n for code, n in zip(codes, counts.tolist(), strict=True)}
    genes = set(source.genes.tolist())
    able = sorted(name for name, n in size.items() if n >= _FEWEST and name in genes)
    n_held_out = round(SHARE * len(able))
    if n_held_out < 2:
        raise UserError(
            f"{source.name}: only {console.count(len(able), 'perturbation')} of {_FEWEST} cells or "
            "more named after a gene of the file",
            hint="the demo holds out a fifth of them and needs at least ten",
        )
    held = sorted(np.random.default_rng([seed, 7]).choice(able, n_held_out, replace=False).tolist())
    return held, [size[name] for name in held]


def _copy(source: CellSource, found: Labels, out: Path, selected: np.ndarray) -> int:
    """Copy the selected cells with their labels; return their number."""
    names = (found.perturbation_column, found.batch_column, found.cell_type_column)
    columns = {name: source.obs(name) for name in names if name}
    categories = {name: column.categories for name, column in columns.items()}
    with CellWriter(out, source.genes, obs=categories) as writer:
        for block in source.chunks(np.flatnonzero(selected)):
            codes = {name: column.codes[block.rows] for name, column in columns.items()}
            writer.append(block, codes, source.cells[block.rows])
        return writer.n_cells


def draw_again(config: Demo, aside: dict[str, Any], out: Path) -> int:
    """Draw other cells of the held-out perturbations from the true effects, as many as measured."""
    simulator = Simulator(
        cells=config.n_cells,
        genes=config.genes,
        perturbations=config.perturbations,
        seed=config.seed,
    )
    again = oracle(simulator, max(aside["cells"]), aside["perturbations"])
    labels_ = again.obs["target_gene"].cat
    with CellWriter(out, again.var_names, obs={"target_gene": labels_.categories}) as writer:
        writer.append(again.X, {"target_gene": labels_.codes.to_numpy()}, again.obs_names.tolist())
        return writer.n_cells
