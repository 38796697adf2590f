"""The groups of cells to compare: perturbations, and controls of the same cell type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.screen.design import Design
from vcell.screen.targets import alike, members, of_the_same_targets

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.labels import Labels


@dataclass(frozen=True)
class Compared:
    """Groups of cells to compare.

    Parameters
    ----------
    codes, names
        Each cell's group, -1 for none, and the names of the groups.
    controls
        The controls of each group; -1 for the controls themselves.
    targets
        The target genes of each group's perturbation.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]
    controls: NDArray[np.int64]
    targets: tuple[tuple[str, ...], ...]


def read_screen(source: CellSource, labels: Labels) -> Compared:
    """Group cells by perturbation and by cell type; different types are not compared."""
    design = Design.read(source, labels)
    perturbation, context, _ = design.pairs()
    names = [design.names[code] for code in perturbation]
    if twice := alike(dict.fromkeys(names), labels.control):
        console.warn(of_the_same_targets(twice))
    several = len(design.contexts) > 1
    codes = design.rows(names, context.tolist())
    # the controls of every context come after the perturbations
    codes = np.where(design.control, len(names) + design.context, codes)
    return Compared(
        codes.astype(np.int32),
        tuple(
            name + (f" ({design.contexts[where]})" if several else "")
            for name, where in zip(
                [*names, *[labels.control] * len(design.contexts)],
                [*context.tolist(), *range(len(design.contexts))],
                strict=True,
            )
        ),
        np.append(len(names) + context, np.full(len(design.contexts), -1)),
        (*(members(name, labels.control) for name in names), *[()] * len(design.contexts)),
    )
