"""Which cells are compared with which: perturbations and controls of the same type of cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.labels import Labels


@dataclass(frozen=True)
class Screen:
    """Groups of cells to compare.

    Parameters
    ----------
    codes, names
        Each cell's group, -1 for none, and what the groups are called.
    controls
        For every group the group of its controls; -1 for controls.
    targets
        For every group the genes its perturbation aims at.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]
    controls: NDArray[np.int64]
    targets: tuple[tuple[str, ...], ...]


def read_screen(source: CellSource, labels: Labels) -> Screen:
    """Group cells by perturbation and, where there are several, by type: types are not compared."""
    column = source.obs(labels.perturbation_column)
    label, names = column.codes.astype(np.int64), column.categories.tolist()
    control = names.index(labels.control)
    kind, kinds = np.zeros(len(label), np.int64), [""]
    if labels.cell_type_column is not None:
        types = source.obs(labels.cell_type_column)
        if len(types.categories) > 1:
            kind, kinds = types.codes.astype(np.int64), types.categories.tolist()
    pair = np.where((label >= 0) & (kind >= 0), label * len(kinds) + kind, -1)
    used = np.unique(
        np.concatenate([pair[pair >= 0], control * len(kinds) + np.arange(len(kinds))])
    )
    place = {int(number): i for i, number in enumerate(used)}
    codes = np.where(pair >= 0, np.searchsorted(used, pair), -1).astype(np.int32)
    of, within = np.divmod(used, len(kinds))
    return Screen(
        codes,
        tuple(
            names[p] + (f" ({kinds[k]})" if len(kinds) > 1 else "")
            for p, k in zip(of, within, strict=True)
        ),
        np.array(
            [
                -1 if p == control else place[control * len(kinds) + int(k)]
                for p, k in zip(of, within, strict=True)
            ],
            np.int64,
        ),
        tuple(() if p == control else split_targets(names[p], labels.control) for p in of),
    )


def split_targets(label: str, control: str) -> tuple[str, ...]:
    """Return the genes of a label such as ``A``, ``A+B`` or ``A+ctrl``."""
    parts = [part.strip() for part in re.split(r"[+,;|]", label)]
    return tuple(part for part in parts if part and part not in (control, "ctrl", "control"))
