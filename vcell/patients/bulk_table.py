"""New bulk samples: a table of expression, matched to the genes of a model.

An .h5ad (or another format that `open_cells` reads) has samples in rows. A .csv or .tsv may have
them in rows or in columns; the side with the model's genes is that of the genes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data import detect, open_cells
from vcell.errors import UserError
from vcell.genes.names import GeneIndex
from vcell.genes.required import required_genes
from vcell.text_files import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from vcell.data import CellSource

    Array = NDArray[Any]

TEXTS = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class BulkTable:
    """Samples, in the order of a model's genes.

    Attributes
    ----------
    samples
        Their names.
    counts
        ``[S, G]``; NaN for a gene that the table lacks.
    missing
        Names of the genes that the model uses and the table lacks.
    """

    samples: tuple[str, ...]
    counts: Array
    missing: tuple[str, ...]


def read_bulk(
    path: Path, genes: Sequence[str], used: NDArray[np.int64], *, layer: str | None, least: float
) -> BulkTable:
    """Read samples, and check that they match the model.

    Parameters
    ----------
    genes, used
        Genes of the model, and the indices of those that it uses.
    least
        Smallest share of the used genes that must be present.
    """
    with _opened(path, genes, layer) as source:
        detect.refuse_repeated(source)
        scale = detect.scale(source)
        if scale.kind not in ("counts", "normalised"):
            raise UserError(
                f"{source.name}: counts or counts a million are needed, these are {scale.text}",
                hint=detect.elsewhere(source, scale, ("counts", "normalised")),
            )
        match, missing = required_genes(source, genes, used.tolist(), least)
        if missing:
            console.warn(f"{len(missing):,} are missing and are set to an average patient's")
        there = match.index >= 0
        counts = np.full((source.n_cells, len(genes)), np.nan)
        for block in source.chunks():
            counts[np.ix_(block.rows, np.flatnonzero(there))] = block.toarray()[
                :, match.index[there]
            ]
        empty = np.flatnonzero(np.nansum(counts, axis=1) <= 0)
        if len(empty):
            raise UserError(
                f"{source.name}: sample {source.cells[int(empty[0])]!r} has no count in these genes"
            )
        return BulkTable(tuple(map(str, source.cells)), counts, missing)


@contextmanager
def _opened(path: Path, genes: Sequence[str], layer: str | None) -> Iterator[CellSource]:
    if path.suffix.lower() not in TEXTS:
        with open_cells(path, layer) as source:
            yield source
        return
    if layer:
        raise UserError(f"{path} is a text file: it has no layers", hint="leave --layer out")
    import anndata
    import pandas as pd

    rows, columns, values = _text(path)
    index = GeneIndex(np.array(list(genes)))
    by_row, by_column = (sum(index.find(name) >= 0 for name in names) for names in (rows, columns))
    if by_row > by_column:
        rows, columns, values = columns, rows, values.T
    data = anndata.AnnData(values, pd.DataFrame(index=rows), pd.DataFrame(index=columns))
    with open_cells(data) as source:
        source.name = path.name
        yield source


def _text(path: Path) -> tuple[list[str], list[str], Array]:
    """Read a table with a row of names on top and a column of names on the left."""
    mark = "," if path.suffix.lower() == ".csv" else "\t"
    lines = [line for _, line in read_rows(path, mark)]
    if len(lines) < 2 or len(lines[1]) < 2:
        raise UserError(
            f"{path} is not a table of numbers", hint="names on top and on the left, separated by "
            + ("commas" if mark == "," else "tabs"),
        )  # fmt: skip
    width = len(lines[1])
    head = lines[0] if len(lines[0]) == width else ["", *lines[0]]  # R omits the corner
    values = np.empty((len(lines) - 1, width - 1))
    for row, line in enumerate(lines[1:]):
        if len(line) != len(head):
            raise UserError(f"{path}: row {row + 2} has {len(line)} fields, not {len(head)}")
        for column, word in enumerate(line[1:]):
            try:
                values[row, column] = float(word)
            except ValueError:
                raise UserError(
                    f"{path}: row {row + 2}, column {head[column + 1]!r}: {word!r} is not a number"
                ) from None
    return [line[0] for line in lines[1:]], head[1:], values
