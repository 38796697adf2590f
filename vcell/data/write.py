"""Write cells to an .h5ad block by block; the file appears complete or not at all.

``with CellWriter("out.h5ad", genes) as out: out.append(block, obs={"batch": codes})``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell.data.block import Block, Csr, from_scipy
from vcell.data.elements import write_tree
from vcell.data.h5_writing import in_one_piece, writing
from vcell.data.write_chunks import ChunkWriter, append
from vcell.data.write_columns import Growing, write_column, write_frame, write_strings
from vcell.errors import UserError
from vcell.outputs import ASIDE, whole

#: Values of an HDF5 chunk: 512 KiB of float32, a good size for reading by several threads.
CHUNK = 1 << 17
#: Rows of a chunk of names, and of an array of obsm.
ROWS = 4096
Compression = Literal["gzip"] | None
Rows = Block | Csr | NDArray[Any] | Any


class _GivenUp(BaseException):
    """Raised in the writing context so that the file does not appear."""


class CellWriter:
    """Writes a file of cells, block by block.

    Parameters
    ----------
    path
        Path of the .h5ad. Until `close` the file has a temporary name.
    genes
        Names of the columns.
    obs
        Names of the obs columns, or names with their categories, in the order of storage. A column
        without categories accepts numbers, booleans or text; text becomes categories.
    obsm
        Names and widths of the float32 arrays of obsm.
    var
        Columns of var, each with a value per gene.
    uns
        Contents of uns: anything that anndata can store.
    compression
        "gzip" or None (faster to write and read, two to four times as large).
    dtype
        Type of the stored values.
    dense
        Store a full table instead of CSR.
    n_cells
        Number of cells, if known: a full table that is not compressed is then in one piece, which
        is faster to write and read than chunks.
    """

    def __init__(  # noqa: PLR0913 - by name, but for the first two
        self,
        path: str | os.PathLike[str],
        genes: Sequence[str] | NDArray[Any],
        *,
        obs: Mapping[str, Sequence[str] | NDArray[Any] | None] | Sequence[str] = (),
        obsm: Mapping[str, int] | None = None,
        var: Mapping[str, Any] | None = None,
        uns: Mapping[str, Any] | None = None,
        compression: Compression = None,
        dtype: type | np.dtype[Any] | str = np.float32,
        dense: bool = False,
        n_cells: int | None = None,
    ) -> None:
        self.path = Path(path)
        if not (self.path.suffix == ".h5ad" or ASIDE in self.path.name):
            raise UserError(f"{self.path}: cells are written as .h5ad")
        if not self.path.parent.is_dir():
            raise UserError(f"{self.path.parent} is not a folder", hint="create it first")
        self.n_cells, self.nnz = 0, 0
        self.n_genes, self._dense = len(genes), dense
        self._indptr: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        given = obs if isinstance(obs, Mapping) else dict.fromkeys(obs)
        self._obs = {name: Growing(name, categories) for name, categories in given.items()}
        self._obsm = dict(obsm or {})
        self._held: dict[str, list[NDArray[Any]]] = {}  # rows of small arrays, to be written
        self._size, self._place = n_cells, -1
        self._open = True
        self._chunks: list[ChunkWriter] = []
        self._output = ExitStack()
        with self._writing():
            aside = self._output.enter_context(whole(self.path))
            opened = writing(aside, libver=("earliest", "v110"))
            self._file, self._sink = self._output.enter_context(opened)
            self._lay_out(np.asarray(genes), var or {}, uns or {}, np.dtype(dtype), compression)

    def _lay_out(
        self,
        genes: NDArray[Any],
        var: Mapping[str, Any],
        uns: Mapping[str, Any],
        dtype: np.dtype[Any],
        compression: Compression,
    ) -> None:
        """Write everything except the cells."""
        import h5py

        file = self._file
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            file.create_group(name).attrs.update(
                {"encoding-type": "dict", "encoding-version": "0.1.0"}
            )
        for name, width in self._obsm.items():
            table = file["obsm"].create_dataset(
                name, (0, width), np.float32, maxshape=(None, width), chunks=(ROWS, width)
            )
            table.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        if uns:
            write_tree(file, "uns", uns)
        frame = write_frame(file, "var", list(var))
        write_strings(frame, "_index", genes)
        for name, values in var.items():
            write_column(frame, name, np.asarray(values))
        obs = write_frame(file, "obs", list(self._obs))
        names = obs.create_dataset(
            "_index", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(ROWS,)
        )
        names.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        self._make_matrix(dtype, compression)

    def _make_matrix(self, dtype: np.dtype[Any], compression: Compression) -> None:
        options = {} if compression is None else {"compression": compression, "compression_opts": 4}
        if self._dense:
            width = max(self.n_genes, 1)
            rows = 1 << max(CHUNK // width, 1).bit_length() - 1
            if self._size is not None and compression is None:
                table, self._place = in_one_piece(
                    self._file, "X", (self._size, self.n_genes), dtype
                )
            else:
                table = self._file.create_dataset(
                    "X", (0, self.n_genes), dtype, maxshape=(None, self.n_genes),
                    chunks=(rows, width), **options,
                )  # fmt: skip
            table.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            self._table = table
            return
        group = self._file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        for name, kind in (("data", dtype), ("indices", np.dtype(np.int32))):
            group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(CHUNK,), **options)
        if compression is not None:
            self._chunks = [ChunkWriter(group[name]) for name in ("data", "indices")]

    def append(
        self,
        cells: Rows,
        obs: Mapping[str, Any] | None = None,
        names: Sequence[str] | NDArray[Any] | None = None,
        obsm: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add cells.

        Parameters
        ----------
        cells
            A `Block`, `Csr`, scipy sparse matrix or dense array with all the genes.
        obs
            One entry per cell for every column: values, or codes for a column with categories.
        names
            Names of the cells; numbers if None.
        obsm
            A row per cell for every array of obsm.
        """
        assert self._open, "append after close"
        full = self._dense and isinstance(cells, np.ndarray)  # stored unchanged
        csr: Any = cells if full or isinstance(cells, Block | Csr) else from_scipy(cells)
        n = len(csr) if full else len(csr.indptr) - 1
        width = cells.n_genes if isinstance(cells, Block) else getattr(cells, "shape", (n, None))[1]
        if width not in (None, self.n_genes):
            raise ValueError(f"cells have {width} genes, the file {self.n_genes}")
        obs = obs or {}
        if set(obs) != set(self._obs):
            raise ValueError(f"obs must have the columns {sorted(self._obs)}, not {sorted(obs)}")
        if names is None:
            names = [f"cell-{i}" for i in range(self.n_cells, self.n_cells + n)]
        for name, column in self._obs.items():
            column.extend(obs[name], n)
        if set(obsm or {}) != set(self._obsm):
            raise ValueError(f"obsm must have the tables {sorted(self._obsm)}")
        if len(names) != n:
            raise ValueError(f"{len(names)} names for {n} cells")
        with self._writing():
            self._hold("obs/_index", np.array(names, dtype=object))
            for name, values in (obsm or {}).items():
                self._hold(f"obsm/{name}", np.array(values, np.float32))
            if full:
                self._append_full(csr, self.n_cells)
            elif self._dense:
                self._append_dense(csr, n)
            else:
                self._append_sparse(csr)
        self.n_cells += n

    def _hold(self, name: str, rows: NDArray[Any]) -> None:
        """Write rows of a small array when there are many: a call of HDF5 takes long."""
        held = self._held.setdefault(name, [])
        held.append(rows)
        if sum(map(len, held)) >= ROWS:
            self._write_held(name)

    def _write_held(self, name: str) -> None:
        rows, array = np.concatenate(self._held.pop(name)), self._file[name]
        first = len(array)
        array.resize(first + len(rows), axis=0)
        if len(rows):
            array[first:] = rows

    def _append_sparse(self, csr: Block | Csr) -> None:
        group, n = self._file["X"], len(csr.data)
        if self._chunks:
            append(self._chunks, (csr.data, csr.indices))
        else:
            for name, values in (("data", csr.data), ("indices", csr.indices)):
                group[name].resize((self.nnz + n,))
                if n:
                    group[name][self.nnz :] = values
        self._indptr.append(np.asarray(csr.indptr[1:], np.int64) + (self.nnz - csr.indptr[0]))
        self.nnz += n

    def _append_full(self, values: NDArray[Any], first: int) -> None:
        """Append a dense table, whose first row is cell number `first`."""
        table, last = self._table, first + len(values)
        if self._place < 0:
            table.resize((last, self.n_genes))
            table[first:] = values
            return
        if last > len(table):
            raise ValueError(f"{last:,} cells or more, not {len(table):,}")
        stored = np.ascontiguousarray(values, table.dtype)
        if stored.size:
            self._sink.seek(self._place + first * self.n_genes * stored.itemsize)
            self._sink.write(stored)

    def _append_dense(self, csr: Block | Csr, n: int) -> None:
        step = max(1, (1 << 22) // max(self.n_genes, 1))  # rows of a 16 MiB piece
        for first in range(0, n, step):
            last = min(first + step, n)
            piece = np.zeros((last - first, self.n_genes), self._table.dtype)
            a, b = csr.indptr[first], csr.indptr[last]
            row = np.repeat(np.arange(last - first), np.diff(csr.indptr[first : last + 1]))
            piece[row, csr.indices[a:b]] = csr.data[a:b]
            self._append_full(piece, self.n_cells + first)

    def close(self) -> None:
        """Finish the file, and rename it to `path`."""
        if not self._open:
            return
        with self._writing():
            if self._size not in (None, self.n_cells):
                raise ValueError(f"{self.n_cells:,} cells, not {self._size:,}")
            for name in list(self._held):
                self._write_held(name)
            obs = self._file["obs"]
            for column in self._obs.values():
                column.write(obs)
            if not self._dense:
                for chunks in self._chunks:
                    chunks.close()
                group = self._file["X"]
                group.create_dataset("indptr", data=np.concatenate(self._indptr))
                group.attrs["shape"] = np.array([self.n_cells, self.n_genes], np.int64)
            self._output.close()
        self._open = False

    def abandon(self) -> None:
        """Close and delete the file."""
        if self._open:
            self._open = False
            given_up = _GivenUp()
            self._output.__exit__(_GivenUp, given_up, given_up.__traceback__)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Clean up after any error; explain disk errors in one sentence."""
        try:
            yield
            if self._open:
                self._sink.check()
        except BaseException:
            self._open = False
            if not self._output.__exit__(*sys.exc_info()):
                raise

    def __enter__(self) -> CellWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()
