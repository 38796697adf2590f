"""Implementation of the hello plugin: count cells by perturbation, greet the largest groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.data import open_cells
from vcell.data.labels import find
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell_hello import Hello


def greet(config: Hello) -> None:
    """Print one greeting per perturbation, those with most cells first."""
    if config.cells is None:
        raise UserError("no cells are named", hint="give --cells FILE, or set cells in [data]")
    with open_cells(config.cells, layer=config.layer) as source:
        labels = find(source, config)
        column = source.obs(labels.perturbation_column)
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
    perturbed = [
        (str(name), int(count))
        for name, count in zip(column.categories, counts, strict=True)
        if name != labels.control
    ]
    perturbed.sort(key=lambda pair: -pair[1])
    shown = perturbed[: config.most]
    text = "\n".join(f"{config.greeting}, {name}! ({count} cells)" for name, count in shown)
    console.result({"greeting": config.greeting, "perturbations": dict(shown)}, text)
