"""The same cells in every kind of file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import scipy.sparse as sp

from tests.data import builders

TABLE = builders.counts()


def h5ad(form: Callable[..., Any], compression: str | None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "cells.h5ad"
        builders.annotated(TABLE, form).write_h5ad(path, compression=compression)
        return path

    return make


def in_zarr(form: Callable[..., Any], version: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "cells.zarr"
        with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=version):
            warnings.simplefilter("ignore")
            builders.annotated(TABLE, form).write_zarr(path)
        return path

    return make


def sharded(folder: Path, compressors: Any = "auto") -> Path:
    import zarr

    path = in_zarr(sp.csr_matrix, 3)(folder)
    group = zarr.open_group(path / "X", mode="r+")
    for name in ("data", "indices"):
        values = group[name][...]
        del group[name]
        group.create_array(
            name, data=values, chunks=(16,), shards=(64,),
            compressors=zarr.codecs.BloscCodec() if compressors == "auto" else compressors,
        )  # fmt: skip
    return path


def tenx_h5(version: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        builders.write_tenx_h5(folder / "cells.h5", TABLE, version)
        return folder / "cells.h5"

    return make


def tenx_mtx(zipped: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        builders.write_mtx(folder / "out", TABLE, zipped=zipped)
        return folder / "out"

    return make


def rewritten(**options: Any) -> Callable[[Path], Path]:
    """CSR whose data and indices are stored otherwise."""

    def make(folder: Path) -> Path:
        path = h5ad(sp.csr_matrix, None)(folder)
        with h5py.File(path, "a") as file:
            for name in ("data", "indices"):
                values = file["X"][name][...]
                del file["X"][name]
                kind = values.dtype.newbyteorder(options.get("order", "="))
                if "wide" in options:
                    kind = np.dtype("f8" if name == "data" else "i8")
                rest = {k: v for k, v in options.items() if k not in ("order", "wide")}
                if "scaleoffset" in rest:  # digits of floats; ints find their own number of bits
                    rest["scaleoffset"] = 3 if name == "data" else 0
                file["X"].create_dataset(name, data=values.astype(kind), dtype=kind, **rest)
        return path

    return make


def skipped_filter(folder: Path) -> Path:
    """The first chunk of X/data is stored raw although the data set says gzip."""
    path = rewritten(chunks=(32,), compression="gzip")(folder)
    with h5py.File(path, "a") as file:
        data = file["X/data"]
        data.id.write_direct_chunk((0,), data[:32].tobytes(), filter_mask=1)
    return path


def in_memory(form: Callable[..., Any]) -> Callable[[Path], Any]:
    return lambda _: builders.annotated(TABLE, form)


def never_written_chunks(folder: Path) -> Path:
    """A dense table of which only the chunks with values were written."""
    path = h5ad(np.asarray, None)(folder)
    with h5py.File(path, "a") as file:
        del file["X"]
        x = file.create_dataset("X", TABLE.shape, "f4", chunks=(1, 23), compression="gzip")
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for i in np.flatnonzero(TABLE.any(axis=1)):
            x[i] = TABLE[i]
    return path


KINDS = {
    "csr": h5ad(sp.csr_matrix, None),
    "csr gzip": h5ad(sp.csr_matrix, "gzip"),
    "csr lzf": h5ad(sp.csr_matrix, "lzf"),
    "csc gzip": h5ad(sp.csc_matrix, "gzip"),
    "dense": h5ad(np.asarray, None),
    "dense gzip": h5ad(np.asarray, "gzip"),
    "small chunks": rewritten(chunks=(7,), compression="gzip"),
    "chunks of one": rewritten(chunks=(1,), compression="gzip"),
    "chunks, no filter": rewritten(chunks=(7,)),
    "shuffle": rewritten(chunks=(20,), compression="gzip", shuffle=True),
    "only shuffle": rewritten(chunks=(20,), shuffle=True),
    "fletcher32": rewritten(chunks=(20,), compression="gzip", fletcher32=True),
    "scaled": rewritten(chunks=(20,), scaleoffset=3),
    "big-endian": rewritten(order=">"),
    "64 bits": rewritten(wide=True, chunks=(20,), compression="gzip"),
    "skipped filter": skipped_filter,
    "dense, chunks never written": never_written_chunks,
    "zarr 2": in_zarr(sp.csr_matrix, 2),
    "zarr 3": in_zarr(sp.csr_matrix, 3),
    "zarr 3 csc": in_zarr(sp.csc_matrix, 3),
    "zarr 3 dense": in_zarr(np.asarray, 3),
    "zarr 3 sharded": sharded,
    "10x h5": tenx_h5(3),
    "10x h5, version 2": tenx_h5(2),
    "10x mtx.gz": tenx_mtx(zipped=True),
    "10x mtx": tenx_mtx(zipped=False),
    "memory csr": in_memory(sp.csr_matrix),
    "memory csc": in_memory(sp.csc_matrix),
    "memory dense": in_memory(np.asarray),
}
