"""An open store: its cells, genes, columns and statistics, and its matrix by rows.

>>> store = Store.open("cells.zarr")
>>> store.read(np.arange(100))          # the first hundred cells as a scipy CSR matrix
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vcell.errors import UserError
from vcell.kernels import frame_rows, frames, gather
from vcell.store.shards import ShardReader, is_framed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

MANIFEST = "vcell.json"
FORMAT = 1
#: Chunks that are read and decoded at once.
_AT_ONCE = 8


class _Chunks:
    """A thread's memory for chunks of a store: encoded, and one that is decoded."""

    def __init__(self, store: Store) -> None:
        self.key = store.chunk, store.idx_dtype, store.val_dtype
        self.idx, self.val = (np.empty(store.chunk, dtype) for dtype in self.key[1:])
        self.coded_idx, self.coded_val = (
            np.empty(_AT_ONCE * frames.room(x.nbytes), np.uint8) for x in (self.idx, self.val)
        )
        self.work = np.empty(frames.WORK, np.uint8)


class _Memory(threading.local):
    """Memory that a thread uses again for the next chunks."""

    def __init__(self) -> None:
        self._chunks: _Chunks | None = None

    def chunks(self, store: Store) -> _Chunks:
        """Return memory for chunks of this store."""
        key = store.chunk, store.idx_dtype, store.val_dtype
        if self._chunks is None or self._chunks.key != key:
            self._chunks = _Chunks(store)
        return self._chunks


_memory = _Memory()


class Store:
    """A store made by `vcell prepare`, open for reading. Safe to use from several threads.

    Attributes
    ----------
    path
        The folder.
    manifest
        The contents of its manifest: format, recipe, inputs, sizes.
    n_cells, n_genes
        The shape of the matrix.
    indptr
        (n_cells + 1,) position of each cell's first value.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.n_cells: int = manifest["n_cells"]
        self.n_genes: int = manifest["n_genes"]
        indptr = ShardReader(path / "X" / "indptr")
        self.indptr: NDArray[np.int64] = indptr.read_all()
        indptr.close()
        self._idx = ShardReader(path / "X" / "indices")
        self._val = ShardReader(path / "X" / "data")
        self._framed = all(is_framed(x.layout.codec, x.dtype) for x in (self._idx, self._val))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store.

        Parameters
        ----------
        path
            The folder that `vcell prepare` made.

        Returns
        -------
        Store

        Raises
        ------
        UserError
            If there is none, or it was written by a newer vcell.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except FileNotFoundError:
            what = "is not a vcell store" if path.exists() else "does not exist"
            hint = "make one with `vcell prepare FILE -o STORE`"
            raise UserError(f"{path} {what}", hint=hint) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path / MANIFEST} cannot be read: {error}") from None
        if manifest.get("format", 0) > FORMAT:
            raise UserError(f"{path} was written by a newer vcell", hint="upgrade vcell")
        return cls(path, manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._idx.close()
        self._val.close()

    @property
    def nnz(self) -> int:
        """Stored values."""
        return int(self.indptr[-1])

    @property
    def idx_dtype(self) -> np.dtype[Any]:
        """Type of the column ids in memory: unsigned, which is faster to index with."""
        return np.dtype(f"u{self._idx.dtype.itemsize}")

    @property
    def val_dtype(self) -> np.dtype[Any]:
        """Type of the values on disk."""
        return self._val.dtype

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        return self._idx.layout.chunk

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix when it is held in memory."""
        return self.nnz * (self.idx_dtype.itemsize + self.val_dtype.itemsize)

    @cached_property
    def genes(self) -> NDArray[np.str_]:
        """The gene names, in column order."""
        return np.asarray(self.var.index, dtype=str)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The table of cells, in the order of the store."""
        return self._table("obs")

    @cached_property
    def var(self) -> pd.DataFrame:
        """The table of genes."""
        return self._table("var")

    @cached_property
    def statistics(self) -> dict[str, NDArray[Any]]:
        """The contents of `preprocessing.npz`, such as per-gene sums over the kept cells."""
        with np.load(self.path / "preprocessing.npz", allow_pickle=False) as file:
            return dict(file)

    @property
    def target_sum(self) -> float | None:
        """The library size to which cells are scaled when log-normalising; None: no counts."""
        target: float | None = self.manifest["target_sum"]
        return target

    def codes(self, column: str) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Return the codes (-1: missing) and categories of an obs column.

        Parameters
        ----------
        column
            Name of the column.

        Returns
        -------
        tuple
            (n_cells,) codes, and the categories, sorted unless the column is categorical.

        Raises
        ------
        UserError
            If there is no such column.
        """
        import pandas as pd

        if column not in self.obs:
            raise UserError(
                f"{self.path} has no obs column {column!r}",
                hint=f"its columns are: {', '.join(map(str, self.obs.columns))}",
            )
        values = self.obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            return values.cat.codes.to_numpy(np.int32), np.asarray(values.cat.categories)
        codes, categories = pd.factorize(values, sort=True)
        return codes.astype(np.int32), np.asarray(categories)

    def scale(self, target_sum: float | None = None) -> NDArray[np.float32]:
        """Return the factor of each cell's counts for the target library size.

        Parameters
        ----------
        target_sum
            The library size; by default the store's own.

        Returns
        -------
        NDArray
            (n_cells,) factors; 1 for empty cells.

        Raises
        ------
        UserError
            If the store does not hold counts.
        """
        if not self.manifest["counts"]:
            raise UserError(
                f"{self.path} holds values that are not counts: they cannot be log-normalised",
                hint="prepare a store of raw counts (--layer), or leave out log1p",
            )
        totals = self.obs["total_counts"].to_numpy(np.float64)
        target: float = self.manifest["target_sum"] if target_sum is None else target_sum
        return (target / np.where(totals > 0, totals, target)).astype(np.float32)

    def columns_of(self, genes: Sequence[str] | NDArray[Any]) -> NDArray[np.int64]:
        """Return the column numbers of genes.

        Parameters
        ----------
        genes
            Names, or column numbers, which are returned as they are.

        Raises
        ------
        UserError
            If a gene is not in the store.
        """
        wanted = np.asarray(genes)
        if wanted.dtype.kind in "iu":
            return wanted.astype(np.int64)
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        missing = [gene for gene in wanted.tolist() if gene not in place]
        if missing:
            some = ", ".join(map(str, missing[:5]))
            raise UserError(f"{self.path} lacks {len(missing)} of the genes, such as {some}")
        return np.array([place[gene] for gene in wanted.tolist()], np.int64)

    def read_chunk(self, number: int, idx: NDArray[Any], val: NDArray[Any]) -> None:
        """Decode one chunk of column ids and values.

        Parameters
        ----------
        number
            Number of the chunk; it starts at value ``number * self.chunk``.
        idx, val
            Arrays to write to, of the types `idx_dtype` and `val_dtype`.
        """
        self._idx.read_chunk(number, idx)
        self._val.read_chunk(number, val)

    def copy_rows(
        self,
        chunks: NDArray[np.int64],
        rows: tuple[NDArray[np.int64], ...],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        out: tuple[NDArray[Any], NDArray[Any]],
    ) -> None:
        """Copy rows out of a few chunks.

        Parameters
        ----------
        chunks, first, last
            As from `vcell.kernels.gather.chunks_of_rows`.
        rows
            First value and length of each row in the store, first value in `out`, and the rows in
            the order of the store.
        out
            Arrays of column ids and values to write to.
        """
        own = _memory.chunks(self)
        done = 0
        while done < len(chunks):
            if self._framed:
                part = slice(done, done + _AT_ONCE)
                numbers = chunks[part].tolist()
                at = [
                    array.read_frames(numbers, coded)
                    for array, coded in ((self._idx, own.coded_idx), (self._val, own.coded_val))
                ]
                sizes = self.idx_dtype.itemsize, self.val_dtype.itemsize
                done += frame_rows.rows_from_frames(
                    own.coded_idx, own.coded_val, *at, *sizes, own.work, chunks[part], self.chunk,
                    *rows, first[part], last[part], *out,
                )  # fmt: skip
                if done == min(part.stop, len(chunks)):
                    continue
                self._framed = False  # the store is older than our frames
            number = int(chunks[done])
            self.read_chunk(number, own.idx, own.val)
            gather.rows_from_chunk(
                own.idx, own.val, number * self.chunk, (number + 1) * self.chunk, *rows,
                int(first[done]), int(last[done]), *out,
            )  # fmt: skip
            done += 1

    def read(self, rows: NDArray[np.integer[Any]] | slice | None = None) -> csr_matrix:
        """Return some cells as a scipy CSR matrix with the types of the store.

        Each chunk is decoded once, by the calling thread; use `Loader` for speed.

        Parameters
        ----------
        rows
            Numbers of cells, or a slice; by default all cells.
        """
        from scipy.sparse import csr_matrix

        everyone = np.arange(self.n_cells, dtype=np.int64)
        picked = everyone if rows is None else everyone[rows]
        src = self.indptr[picked]
        length = self.indptr[picked + 1] - src
        indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        idx, val = np.empty(indptr[-1], self.idx_dtype), np.empty(indptr[-1], self.val_dtype)
        order = np.argsort(src, kind="stable")
        chunks, first, last = gather.chunks_of_rows(src, length, order, self.chunk)
        self.copy_rows(chunks, (src, length, indptr, order), first, last, (idx, val))
        shape = (len(picked), self.n_genes)
        return csr_matrix((val, idx.astype(np.int32), indptr), shape=shape, copy=False)

    def verify(self) -> None:
        """Check every checksum.

        Raises
        ------
        UserError
            Naming the first damaged file.
        """
        for array in (self._idx, self._val):
            for shard in range(array.layout.n_shards):
                array.verify_shard(shard)

    def _table(self, name: str) -> pd.DataFrame:
        import anndata.io
        import zarr

        try:
            group = zarr.open_group(self.path, mode="r", zarr_format=3)
            return anndata.io.read_elem(group[name])
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{self.path / name} cannot be read: {error}") from None
