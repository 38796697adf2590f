"""Plots of the embeddings in a file's obsm, with at most a few thousand cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.report import svg

if TYPE_CHECKING:
    from vcell.data import CellSource

_CELLS, _GROUPS, _PICTURES = 3000, 7, 4
_KNOWN = ("umap", "tsne", "pca")  # plotted first, in this order


@dataclass(frozen=True)
class Projection:
    """Two dimensions of some cells, with the group of each."""

    name: str
    at: NDArray[np.float64]  # [cells, 2]
    groups: dict[str, NDArray[np.int64]]  # rows of each group, largest first
    column: str | None

    def draw(self) -> str:
        """Return the figure."""
        series = {
            group: (self.at[rows, 0].tolist(), self.at[rows, 1].tolist())
            for group, rows in self.groups.items()
        }
        return svg.scatter(series, x=f"{self.name} 1", y=f"{self.name} 2", equal=True)

    @property
    def caption(self) -> str:
        """Return an explanation of the colours."""
        shown = console.count(len(self.at), "cell")
        return f"{shown}, coloured by {self.column}." if self.column else f"{shown}."


def read(source: CellSource, report: dict[str, Any]) -> list[Projection]:
    """Read embeddings with two dimensions or more; umap, tsne and pca first."""
    labels = report["labels"]
    names = sorted(source.parts.get("obsm", []), key=_order)
    n = min(source.n_cells, _CELLS)
    rows = np.unique(np.linspace(0, max(source.n_cells - 1, 0), n).astype(np.int64))
    column = labels.get("cell_type_column") or labels.get("perturbation_column")
    column = column or telling(report)
    groups = _groups(source, column, rows) if len(rows) else {}
    found: list[Projection] = []
    for name in names:
        values = source.embedding(name, rows) if len(rows) else None
        if values is None or _composition(values):
            continue
        if values.shape[1] >= 2 and len(found) < _PICTURES:
            found.append(Projection(name, values[:, :2], groups, column))
    return found


def _composition(values: NDArray[np.float64]) -> bool:
    """Return whether the rows are fractions of a whole, which are no places in a plane."""
    return bool((values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-3))


def telling(report: dict[str, Any]) -> str | None:
    """Return the first column of obs that has few enough groups to colour cells by."""
    found = (c["name"] for c in report["obs"] if 2 <= c.get("n_categories", 0) <= 2 * _GROUPS)
    return next(found, None)


def _order(name: str) -> tuple[int, str]:
    known = [i for i, word in enumerate(_KNOWN) if word in name.lower()]
    return (known[0] if known else len(_KNOWN), name)


def _groups(
    source: CellSource, column: str | None, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Return positions among the rows by group; small groups are joined."""
    if column is None:
        return {"cells": np.arange(len(rows))}
    found = source.obs(column)
    codes = found.codes[rows]
    sizes = np.bincount(codes[codes >= 0], minlength=len(found.categories))
    largest = np.argsort(-sizes, kind="stable")[:_GROUPS]
    groups = {
        str(found.categories[code]): np.flatnonzero(codes == code)
        for code in largest.tolist()
        if sizes[code]
    }
    others = np.flatnonzero(~np.isin(codes, largest))
    return groups | ({"others": others} if len(others) else {})
