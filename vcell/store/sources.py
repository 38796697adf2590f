"""Stores, files and matrices in memory behind the interface that a loader reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.errors import UserError
from vcell.store.cells import Codes, MatrixCells, Opened, StoreCells
from vcell.store.plain import open_plain
from vcell.store.store import MANIFEST, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def open_source(cells: Any) -> Opened:
    """Open whatever a loader was given.

    Raises
    ------
    UserError
        If it can't be opened.
    """
    if isinstance(cells, str | Path) and (Path(cells) / MANIFEST).is_file():
        cells = Store.open(cells)
    if isinstance(cells, Store):
        return Opened(StoreCells(cells), cells.codes, cells.columns_of, cells.scale, cells)
    if _is_csr(cells):
        return _open_matrix(cells)
    return open_plain(cells)


def _is_csr(cells: Any) -> bool:
    return getattr(cells, "format", None) == "csr" and hasattr(cells, "indptr")


def _open_matrix(matrix: csr_matrix) -> Opened:
    def no_labels(column: str) -> Codes:
        raise UserError(f"a bare matrix has no column {column!r}", hint="pass an AnnData")

    def by_number(genes: Sequence[str] | NDArray[Any]) -> NDArray[np.int64]:
        if np.asarray(genes).dtype.kind not in "iu":
            raise UserError("a bare matrix has no gene names", hint="give column numbers")
        return np.asarray(genes, np.int64)

    def scale() -> NDArray[np.float32]:
        totals = np.asarray(matrix.sum(axis=1)).ravel()
        target = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
        return (target / np.where(totals > 0, totals, target)).astype(np.float32)

    indptr = matrix.indptr.astype(np.int64)
    cells = MatrixCells(matrix.indices, matrix.data, indptr, matrix.shape[1])
    return Opened(cells, no_labels, by_number, scale)
