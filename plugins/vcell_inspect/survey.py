"""One pass over a sample of the cells, or over all: quality of cells and genes, unusual values.

C cells in the survey, G genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect
from vcell.data.block import Csr, canonical, sparse_dtype
from vcell.data.matrix import Bound, CsrMatrix
from vcell.data.prefetch import prefetched
from vcell.data.source import MAX_NNZ, MAX_ROWS
from vcell.kernels.rows import disorder, survey_values

if TYPE_CHECKING:
    from vcell.data import CellSource

_WAYS = ("nan", "infinite", "negative", "fraction")  # the columns of `survey_values`


@dataclass
class Survey:
    """The results of a pass.

    Attributes
    ----------
    totals, detected, mito
        ``[C]``: sum of the values, number of genes, percentage from mitochondrial genes.
    gene_sums, gene_cells
        ``[G]``: sum of the values, number of cells.
    odd
        Number of values (or rows) of each unusual kind.
    """

    genes: NDArray[np.str_]
    n_cells: int
    mito_genes: NDArray[np.bool_]
    gene_sums: NDArray[np.float64]
    gene_cells: NDArray[np.int64]
    odd: dict[str, int] = field(default_factory=dict)
    n_values: int = 0
    _cells: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def n_seen(self) -> int:
        """Number of cells in the survey."""
        return sum(len(part) for part in self._cells)

    @property
    def whole(self) -> bool:
        """Whether all cells are in the survey."""
        return self.n_seen == self.n_cells

    def per_cell(self, which: int) -> NDArray[np.float64]:
        """Return totals (0), detected genes (1) or percent mitochondrial (2) of the cells."""
        parts = [part[:, which] for part in self._cells]
        return np.concatenate(parts) if parts else np.zeros(0)

    def count(self, kind: str, number: int) -> None:
        """Count something unusual."""
        if number:
            self.odd[kind] = self.odd.get(kind, 0) + number

    def add(self, csr: Csr) -> None:
        """Add canonical rows."""
        cells, odd = np.empty((len(csr.indptr) - 1, 3)), np.zeros(len(_WAYS), np.int64)
        survey_values(
            csr.indptr, csr.indices, csr.data, self.mito_genes, cells, self.gene_sums,
            self.gene_cells, odd,
        )  # fmt: skip
        self._cells.append(cells)
        self.n_values += len(csr.data)
        for kind, number in zip(_WAYS, odd.tolist(), strict=True):
            self.count(kind, number)

    def add_stored(self, csr: Csr) -> None:
        """Add rows as stored: unsorted, with duplicates and stored zeros."""
        unsorted, repeated, zeros = disorder(csr.indptr, csr.indices, csr.data)
        self.count("unsorted rows", unsorted)
        self.count("repeated entries", repeated)
        self.count("stored zeros", zeros)

    def summary(self) -> dict[str, Any]:
        """Return medians and counts."""
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
    """Read the sample or all cells; None if a sample would need a whole pass."""
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
    rows: Any = range(source.n_cells)
    if not full:
        rows = detect.sample_rows(source.n_cells, source.nnz, source.n_genes)
    with console.progress(f"looking at {source.name}", len(rows)) as bar:
        for stored, csr in prefetched(_pieces(source, rows)):
            if stored is not None:
                found.add_stored(stored)
            found.add(csr)
            n = len(csr.indptr) - 1
            bar.advance(n, read=source.bytes_of(n, len((stored or csr).data)))
    return found


def _pieces(source: CellSource, rows: Any) -> Iterator[tuple[Csr | None, Csr]]:
    """Yield rows as stored, where they are not canonical, and as canonical rows."""
    matrix = source.matrix
    dtype = sparse_dtype(source.dtype)
    for piece in matrix.cuts(rows, None, Bound(MAX_NNZ, MAX_ROWS)):
        if isinstance(matrix, CsrMatrix):
            stored = matrix.stored(piece, dtype)
            csr = canonical(stored, source.n_genes)
            yield None if csr is stored else stored, csr
        else:
            yield None, matrix.read(piece, None, dtype)


def _median(values: NDArray[np.float64]) -> float | None:
    """Return the median, which numpy's own imports masked arrays to compute."""
    n = len(values)
    middle = np.array([(n - 1) // 2, n // 2])
    return float(np.partition(values, middle)[middle].sum() / 2) if n else None
