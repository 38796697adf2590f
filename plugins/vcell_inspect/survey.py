"""One pass over a sample of the cells, or over all: quality of cells and genes, oddities of values.

Legend: ``C`` cells looked at, ``G`` genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect
from vcell.data.matrix import Bound, CsrMatrix
from vcell.data.source import MAX_NNZ, MAX_ROWS

if TYPE_CHECKING:
    from vcell.data import Block, CellSource
    from vcell.data.block import Csr


@dataclass
class Survey:
    """What a pass saw.

    Attributes
    ----------
    totals, detected, mito
        ``[C]``: sum of the values, number of genes, percentage from mitochondrial genes.
    gene_sums, gene_cells
        ``[G]``: sum of the values, number of cells.
    odd
        How many values (or rows) are odd in each way.
    """

    genes: NDArray[np.str_]
    n_cells: int
    mito_genes: NDArray[np.bool_]
    gene_sums: NDArray[np.float64]
    gene_cells: NDArray[np.int64]
    odd: dict[str, int] = field(default_factory=dict)
    n_values: int = 0
    _cells: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    @property
    def n_seen(self) -> int:
        """Number of cells looked at."""
        return sum(len(part[0]) for part in self._cells)

    @property
    def whole(self) -> bool:
        """Whether all cells were looked at."""
        return self.n_seen == self.n_cells

    def per_cell(self, which: int) -> NDArray[np.float64]:
        """Return totals (0), detected genes (1) or percent mitochondrial (2) of the cells."""
        parts = [part[which] for part in self._cells]
        return np.concatenate(parts) if parts else np.zeros(0)

    def count(self, what: str, number: int) -> None:
        """Note something odd."""
        if number:
            self.odd[what] = self.odd.get(what, 0) + number

    def add(self, block: Block) -> None:
        """Take a canonical block."""
        lengths = np.diff(block.indptr)
        row = np.repeat(np.arange(len(block)), lengths)
        values = block.data.astype(np.float64, copy=False)
        finite = np.where(np.isfinite(values), values, 0.0)
        totals = np.bincount(row, finite, len(block))
        mito = np.bincount(row, finite * self.mito_genes[block.indices], len(block))
        share = np.divide(100 * mito, totals, out=np.zeros(len(block)), where=totals > 0)
        self._cells.append((totals, lengths, share))
        self.gene_sums += np.bincount(block.indices, finite, len(self.genes))
        self.gene_cells += np.bincount(block.indices, minlength=len(self.genes))
        self.n_values += len(values)
        self.count("nan", int(np.isnan(values).sum()))
        self.count("infinite", int(np.isinf(values).sum()))
        self.count("negative", int((values < 0).sum()))
        self.count("fraction", int((finite != np.rint(finite)).sum()))

    def add_stored(self, csr: Csr) -> None:
        """Take rows as they lie in the file: unsorted, repeated, zeros stored."""
        if len(csr.indices) > 1:
            row = np.repeat(np.arange(len(csr.indptr) - 1), np.diff(csr.indptr))
            same = row[1:] == row[:-1]
            step = np.diff(csr.indices)
            self.count("unsorted rows", len(np.unique(row[1:][same & (step < 0)])))
            order = np.lexsort((csr.indices, row)) if (same & (step < 0)).any() else None
            if order is not None:
                row, step = row[order], np.diff(csr.indices[order])
            self.count("repeated entries", int(((row[1:] == row[:-1]) & (step == 0)).sum()))
        self.count("stored zeros", int((csr.data == 0).sum()))

    def summary(self) -> dict[str, Any]:
        """Return medians and counts for people and JSON."""
        totals, detected, mito = (self.per_cell(i) for i in range(3))
        return {
            "cells_seen": self.n_seen,
            "median_total": _median(totals),
            "median_genes": _median(detected),
            "median_mito_percent": _median(mito) if self.mito_genes.any() else None,
            "mito_genes": int(self.mito_genes.sum()),
            "empty_cells": int((detected == 0).sum()),
            "unseen_genes": int((self.gene_cells == 0).sum()),
            "odd": self.odd,
        }


def survey(source: CellSource, *, full: bool) -> Survey | None:
    """Look at the sample or at everything; None where a sample would cost a whole pass."""
    if source.matrix.needs_pass and not full:
        console.say(
            f"{source.name} is stored so that cells can only be seen by reading all of it: "
            "cells are left out, --full looks at them"
        )
        return None
    upper = np.char.upper(source.genes)
    found = Survey(
        source.genes, source.n_cells, np.char.startswith(upper, "MT-"),
        np.zeros(source.n_genes), np.zeros(source.n_genes, np.int64),
    )  # fmt: skip
    n = source.n_cells if full else None
    with console.progress(f"looking at {source.name}", n) as bar:
        for block in source.chunks(dtype="stored") if full else detect.sample(source):
            found.add(block)
            bar.advance(len(block))
    for csr in _stored(source, full=full):
        found.add_stored(csr)
    return found


def _stored(source: CellSource, *, full: bool) -> Iterator[Csr]:
    """Read rows uncorrected, where the file could hold odd ones."""
    matrix = source.matrix
    if not isinstance(matrix, CsrMatrix):
        return
    rows: Any = range(source.n_cells)
    if not full:
        rows = detect.sample_rows(source.n_cells, source.nnz, source.n_genes)
    for piece in matrix.cuts(rows, None, Bound(MAX_NNZ, MAX_ROWS)):
        yield matrix.stored(piece, source.dtype)


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None
