"""Matrices streamed into h5ad and zarr groups: by cell, by gene, dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data.block import sparse_dtype
from vcell.errors import UserError
from vcell.kernels import gather

if TYPE_CHECKING:
    from vcell.data import CellSource

Array = NDArray[Any]
#: Non-zeros that are transposed at once: 400 MB of values and row numbers.
_AT_ONCE = 50_000_000
_HDF5: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 4},
    "lzf": {"compression": "lzf"},
}


@dataclass(frozen=True)
class Target:
    """A group of an open file and how arrays are laid out in it."""

    root: Any
    compression: str | None
    chunk: int
    shard: int

    @property
    def is_zarr(self) -> bool:
        """A zarr group, not an HDF5 one."""
        return not hasattr(self.root, "id")

    def group(self, name: str, kind: str, shape: tuple[int, int]) -> Any:
        """Make the group of a sparse matrix."""
        group = self.root.create_group(name)
        group.attrs["encoding-type"] = f"{kind}_matrix"
        group.attrs["encoding-version"] = "0.1.0"
        group.attrs["shape"] = list(shape)
        return group

    def array(self, group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make an array that can grow along its first axis."""
        width = max(int(np.prod(shape[1:])), 1)
        rest = tuple(max(1, n) for n in shape[1:])
        chunk = (max(1, self.chunk // width), *rest)
        if self.is_zarr:
            shards = (self._shard_rows(width), *rest) if self.shard else None
            array = self._zarr(group, name, shape, dtype, chunk, shards)
        else:
            array = group.create_dataset(
                name, shape, dtype, chunks=chunk, maxshape=(None, *shape[1:]), **self._hdf5()
            )
        array.attrs["encoding-type"] = "array"
        array.attrs["encoding-version"] = "0.2.0"
        return array

    def rows_at_once(self, width: int) -> int:
        """Return how many rows (or elements) to write at once: whole shards or several chunks."""
        if self.is_zarr and self.shard:
            return self._shard_rows(width)
        return max(1, self.chunk // max(width, 1)) * 16

    def _shard_rows(self, width: int) -> int:
        chunk = max(1, self.chunk // max(width, 1))
        return max(1, self.shard // max(width, 1) // chunk) * chunk

    def _hdf5(self) -> dict[str, Any]:
        compression = self.compression or "gzip"
        if compression == "none":
            return {}
        if compression in _HDF5:
            return _HDF5[compression]
        try:
            import hdf5plugin
        except ImportError:
            raise UserError(
                f"{compression} in h5ad files needs the package hdf5plugin",
                hint="pip install hdf5plugin, or use --compression gzip, lzf or none",
            ) from None
        filters: dict[str, Any] = {"zstd": hdf5plugin.Zstd(3), "lz4": hdf5plugin.LZ4()}
        return dict(filters[compression])

    def _zarr(
        self, group: Any, name: str, shape: tuple[int, ...], dtype: Any, chunk: Any, shards: Any
    ) -> Any:
        from zarr.codecs import BloscCodec, GzipCodec

        compression = self.compression or "lz4"
        if compression == "lzf":
            raise UserError("zarr has no lzf", hint="use lz4, zstd, gzip or none")
        coders: list[Any] = []
        cname: Any = compression
        if compression == "gzip":
            coders = [GzipCodec(level=4)]
        elif compression != "none":
            size = np.dtype(dtype).itemsize
            coders = [BloscCodec(cname=cname, clevel=5, shuffle="shuffle", typesize=size)]
        return group.create_array(
            name, shape=shape, dtype=dtype, chunks=chunk, shards=shards, compressors=coders,
            filters=None, fill_value=0,
        )  # fmt: skip


class _Growing:
    """A one-dimensional array written in whole shards or many chunks at a time."""

    def __init__(self, target: Target, group: Any, name: str, dtype: Any) -> None:
        self.array = target.array(group, name, (0,), dtype)
        self.dtype = np.dtype(dtype)
        self._step = target.rows_at_once(1)
        self._pending: list[Array] = []
        self._n_pending = 0
        self.written = 0

    def append(self, values: Array) -> None:
        """Add elements."""
        self._pending.append(np.array(values, self.dtype))
        self._n_pending += len(values)
        if self._n_pending >= self._step:
            self._flush(self._n_pending // self._step * self._step)

    def finish(self) -> None:
        """Write what is left."""
        self._flush(self._n_pending)

    def _flush(self, n: int) -> None:
        if n:
            whole = np.concatenate(self._pending)
            self.array.resize((self.written + n,))
            self.array[self.written : self.written + n] = whole[:n]
            self.written += n
            self._pending, self._n_pending = [whole[n:]], len(whole) - n


def _index_type(n: int) -> str:
    return "i4" if n < 2**31 else "i8"


def write_csr(source: CellSource, target: Target, name: str, bar: Any) -> None:
    """Write a matrix by cell."""
    kind = sparse_dtype(source.dtype)
    group = target.group(name, "csr", (source.n_cells, source.n_genes))
    data = _Growing(target, group, "data", kind)
    indices = _Growing(target, group, "indices", _index_type(source.n_genes))
    indptr = np.zeros(source.n_cells + 1, np.int64)
    for block in source.chunks(dtype=kind):
        data.append(block.data)
        indices.append(block.indices)
        a = block.start
        indptr[a + 1 : a + 1 + len(block)] = indptr[a] + block.indptr[1:]
        bar.advance(len(block), read=source.bytes_of(len(block), len(block.data)))
    _finish(group, target, indptr, data, indices)


def write_csc(source: CellSource, target: Target, name: str, bar: Any) -> None:
    """Write a matrix by gene: count, then write as many genes at a time as fit in memory."""
    n_genes = source.n_genes
    counts = np.zeros(n_genes, np.int64)
    for block in source.chunks(dtype="stored"):
        gather.add_counts(block.indices, counts)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kind = sparse_dtype(source.dtype)
    group = target.group(name, "csc", (source.n_cells, n_genes))
    data = _Growing(target, group, "data", kind)
    indices = _Growing(target, group, "indices", _index_type(source.n_cells))
    cuts = _cuts(indptr)
    if len(cuts) > 1:
        console.say(f"{name} by gene takes {len(cuts) + 1} passes over the input")
    for a, b in cuts:
        n = int(indptr[b] - indptr[a])
        row, val = np.empty(n, indices.dtype), np.empty(n, kind)
        cursor = indptr[a:b] - indptr[a]
        for block in source.chunks(genes=np.arange(a, b), dtype=kind):
            gather.to_columns(
                block.indptr, block.indices, block.data, block.start, cursor, row, val
            )
            read = source.bytes_of(len(block), len(block.data))
            bar.advance(len(block) / len(cuts), read=read)
        data.append(val)
        indices.append(row)
    _finish(group, target, indptr, data, indices)


def _cuts(indptr: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return ranges of columns with at most `_AT_ONCE` elements, or of one column."""
    cuts, a, n = [], 0, len(indptr) - 1
    while a < n:
        b = int(np.searchsorted(indptr, indptr[a] + _AT_ONCE, side="right")) - 1
        b = min(max(b, a + 1), n)
        cuts.append((a, b))
        a = b
    return cuts


def _finish(
    group: Any, target: Target, indptr: NDArray[np.int64], data: _Growing, indices: _Growing
) -> None:
    data.finish()
    indices.finish()
    pointers = _Growing(target, group, "indptr", "i8" if indptr[-1] >= 2**31 else "i4")
    pointers.append(indptr)
    pointers.finish()


def write_dense(source: CellSource, target: Target, name: str, bar: Any) -> None:
    """Write a dense matrix."""
    parent, _, leaf = name.rpartition("/")
    group = target.root.require_group(parent) if parent else target.root
    shape = (source.n_cells, source.n_genes)
    table = target.array(group, leaf, shape, source.dtype)
    step = target.rows_at_once(source.n_genes)
    for first in range(0, source.n_cells, step):
        rows = slice(first, min(first + step, source.n_cells))
        piece = np.zeros((rows.stop - rows.start, source.n_genes), source.dtype)
        read = 0.0
        for block in source.chunks(rows=rows, dtype="stored", prefetch=False):
            piece[block.start - first : block.start - first + len(block)] = block.toarray()
            read += source.bytes_of(len(block), len(block.data))
        table[rows] = piece
        bar.advance(len(piece), read=read)
