"""`CellSource`: one interface over every kind of file that holds cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vcell.data.block import Block, Genes
from vcell.data.matrix import Bound, Layout, Matrix, Rows
from vcell.data.prefetch import prefetched
from vcell.errors import UserError
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.column import Column
    from vcell.data.frame import Frame
    from vcell.data.texts import Texts

#: Non-zeros of a block: 32 MiB of float32 and int32, so that a few blocks fit any machine.
MAX_NNZ = 1 << 22
#: Maximum number of rows of a block.
MAX_ROWS = 1 << 14


class CellSource:
    """Cells by genes with their labels, read in bounded memory.

    Made by `vcell.data.open_cells`; close it, or use it in a ``with``.
    """

    def __init__(  # noqa: PLR0913 - made in few places, by name
        self,
        matrix: Matrix,
        obs: Frame,
        var: Frame,
        *,
        paths: Sequence[Path] = (),
        name: str,
        layer: str | None = None,
        join: Literal["strict", "inner", "outer"] = "strict",
        parts: dict[str, Any] | None = None,
        close: Callable[[], None] = lambda: None,
        embeddings: Mapping[str, Any] | None = None,
    ) -> None:
        self.matrix, self.obs_frame, self.var_frame = matrix, obs, var
        self.paths = list(paths)
        #: Name for messages.
        self.name = name
        #: Which matrix of the file this is: None for X, "raw" for raw/X, else a layer.
        self.layer = layer
        #: How the genes of several files were combined.
        self.join = join
        #: What else the file has: "layers", "raw", "obsm", "uns" names, "format".
        self.parts = parts or {}
        #: What `open_cells` was given: another matrix of the same file is opened from it.
        self.given: Any = None
        self._embeddings = embeddings or {}
        self._close, self._lent = close, False
        n_cells, n_genes = matrix.shape
        for what, frame, n in (("obs", obs, n_cells), ("var", var, n_genes)):
            if frame.n != n:
                raise UserError(f"{name}: {what} has {frame.n:,} rows, the matrix {n:,}")

    @property
    def path(self) -> Path | None:
        """The file, or the first of several; None for AnnData in memory."""
        return self.paths[0] if self.paths else None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.matrix.shape[0]

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.matrix.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values as stored."""
        return self.matrix.dtype

    @property
    def nnz(self) -> int | None:
        """Number of stored values; None if unknown without reading everything (dense)."""
        return self.matrix.nnz

    @property
    def layout(self) -> Layout:
        """How the matrix is stored."""
        return self.matrix.layout

    @cached_property
    def genes(self) -> NDArray[np.str_]:
        """Names of the genes."""
        return np.asarray(self.var_frame.names(), dtype=np.str_)

    @cached_property
    def cells(self) -> Texts:
        """Names of the cells, in a compact form: ``cells[rows]`` makes strings."""
        return self.obs_frame.names()

    @property
    def obs_columns(self) -> list[str]:
        """Names of the columns of obs."""
        return self.obs_frame.columns

    @property
    def var_columns(self) -> list[str]:
        """Names of the columns of var."""
        return self.var_frame.columns

    def bytes_of(self, n_cells: int, nnz: int) -> float:
        """Estimate the bytes in the file of `n_cells` cells with `nnz` non-zeros; 0 if unknown."""
        size = self.layout.bytes or 0
        return size * (
            n_cells / max(self.n_cells, 1) if self.nnz is None else nnz / max(self.nnz, 1)
        )

    def obs(self, column: str) -> Column:
        """Read one column of obs.

        Parameters
        ----------
        column
            Name of the column.

        Returns
        -------
        Column
            Its codes and categories.

        Raises
        ------
        UserError
            If there is no such column; the hint lists the existing ones.
        """
        return self._column("obs", self.obs_frame, column)

    def var(self, column: str) -> Column:
        """Read one column of var; an unknown one raises `UserError`."""
        return self._column("var", self.var_frame, column)

    def embedding(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Read rows of an array in obsm.

        Parameters
        ----------
        name
            Name of the array.
        rows
            Numbers of cells, ascending.

        Returns
        -------
        NDArray or None
            ``[cells, dimensions]``; None if there is no such numeric array of two dimensions.
        """
        stored: Any = self._embeddings.get(name)
        if len(getattr(stored, "shape", ())) != 2 or stored.dtype.kind not in "iuf":
            return None
        if stored.shape[0] != self.n_cells:
            return None
        first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        dense = last - first <= 4 * len(rows)  # close together: reading one range is faster
        values = stored[first:last][rows - first] if dense else _picked(stored, rows)
        return np.asarray(values, np.float64)

    def _column(self, what: str, frame: Frame, column: str) -> Column:
        if column not in frame.columns:
            listed = ", ".join(frame.columns[:30]) or "none"
            raise UserError(
                f"{self.name}: {what} has no column {column!r}"
                f"{did_you_mean(column, frame.columns)}",
                hint=f"its columns: {listed}",
            )
        return frame.column(column)

    def chunks(
        self,
        rows: slice | NDArray[Any] | None = None,
        genes: NDArray[Any] | None = None,
        *,
        max_nnz: int = MAX_NNZ,
        max_rows: int = MAX_ROWS,
        dtype: Literal["stored"] | type | np.dtype[Any] = np.float32,
        prefetch: bool = True,
    ) -> Iterator[Block]:
        """Read cells block by block; the next is read while the current one is processed.

        Parameters
        ----------
        rows
            Cells to read: a slice, ascending numbers, or a mask. None: all.
        genes
            Columns to read, in the order that blocks shall have. None: all.
        max_nnz, max_rows
            Maximum size of a block; a row with more than `max_nnz` non-zeros is a block of its own.
            Non-zeros are counted before columns are chosen; dense files count zeros too.
        dtype
            Type of the values, or "stored" for the file's own.
        prefetch
            Read the next block in a thread meanwhile.

        Yields
        ------
        Block
            Canonical CSR; its arrays are valid for as long as you hold a reference to them.
        """
        wanted = self.dtype if isinstance(dtype, str) else np.dtype(dtype)
        choice = None if genes is None else Genes.choose(np.asarray(genes), self.n_genes)
        chosen = self._rows(rows)
        blocks = self._blocks(chosen, choice, Bound(max_nnz, max_rows), wanted)
        return prefetched(blocks) if prefetch else blocks

    def _rows(self, rows: slice | NDArray[Any] | None) -> Rows:
        if rows is None:
            return range(self.n_cells)
        if isinstance(rows, slice):
            chosen = range(self.n_cells)[rows]
            if chosen.step != 1:
                raise ValueError("rows must be a slice with step 1")
            return chosen
        numbers = np.asarray(rows)
        if numbers.dtype == bool:
            if numbers.shape != (self.n_cells,):
                raise ValueError("a mask of rows needs one entry a cell")
            return np.flatnonzero(numbers)
        numbers = numbers.astype(np.int64)
        if len(numbers) and (numbers[0] < 0 or numbers[-1] >= self.n_cells):
            raise ValueError(f"rows must lie between 0 and {self.n_cells - 1}")
        if (np.diff(numbers) <= 0).any():
            raise ValueError("rows must ascend")
        return numbers

    def _blocks(
        self, rows: Rows, genes: Genes | None, bound: Bound, dtype: np.dtype[Any]
    ) -> Iterator[Block]:
        n_genes = self.n_genes if genes is None else len(genes.chosen)
        for piece in self.matrix.cuts(rows, genes, bound):
            csr = self.matrix.read(piece, genes, dtype)
            numbers = np.arange(piece.start, piece.stop) if isinstance(piece, range) else piece
            yield Block(int(numbers[0]), numbers, csr.indptr, csr.indices, csr.data, n_genes)

    def lent(self) -> CellSource:
        """Return a view of the same cells; closing it leaves this source open."""
        other = copy(self)
        other._lent = True
        return other

    def close(self) -> None:
        """Close the file; blocks stay valid."""
        if self._lent:
            return
        self.matrix.close()
        self._close()

    def __enter__(self) -> CellSource:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _picked(stored: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Read single rows of an array in memory, in an h5ad or in a zarr folder."""
    orthogonal = getattr(stored, "oindex", None)  # zarr's name for it
    picked: NDArray[Any] = stored[rows] if orthogonal is None else orthogonal[rows, slice(None)]
    return picked
