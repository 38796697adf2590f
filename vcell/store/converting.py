"""The same cells in another layout: h5ad or zarr, by cell, by gene or dense, with given chunks.

Matrices (X, layers, raw) are streamed in bounded memory; everything else that anndata stores is
copied unchanged. The output appears complete or not at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vcell import console, outputs
from vcell.data import CellSource, open_cells
from vcell.data.detect import warn_of_repeated
from vcell.data.elements import is_hdf5, note
from vcell.data.h5_writing import writing
from vcell.data.nodes import encoding, is_group
from vcell.errors import UserError
from vcell.store.frames import check_names, write_obs, write_var
from vcell.store.matrices import Target, write_csc, write_csr, write_dense

Form = Literal["csr", "csc", "dense"]
Compression = Literal["gzip", "lzf", "lz4", "zstd", "none"]
_ARE_DICTS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """Layout of the output.

    Parameters
    ----------
    form
        ``"csr"`` (fast by cell), ``"csc"`` (fast by gene) or ``"dense"``; None: as the input.
    compression
        None: gzip for h5ad, lz4 for zarr.
    chunk, shard
        Elements of a chunk, and for zarr of a shard file (0: no shards).
    """

    form: Form | None = None
    compression: Compression | None = None
    chunk: int = 1 << 17
    shard: int = 1 << 25


@dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    n_cells: int
    n_genes: int
    matrices: list[str]
    form: str


def convert(
    path: Path, target: Path, plan: ConversionPlan, *, overwrite: bool = False
) -> Converted:
    """Write the cells of `path` to `target`, whose name ends in .h5ad or .zarr.

    Raises
    ------
    UserError
        If a file can't be read or written, or the layout isn't possible.
    """
    if target.suffix not in (".h5ad", ".zarr"):
        raise UserError(f"{target}: the output is an .h5ad file or a .zarr folder")
    outputs.check(target, inputs=[path], overwrite=overwrite)
    with open_cells(path) as source:
        warn_of_repeated(source)
        check_names(source, is_zarr=target.suffix == ".zarr")
        form = plan.form or source.layout.kind
        with _output(target) as root:
            names = _write_all(path, source, root, form, plan)
    return Converted(target, source.n_cells, source.n_genes, names, form)


def _write_all(
    path: Path, source: CellSource, root: Any, form: str, plan: ConversionPlan
) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: strings have no version 3 specification yet
        done = ["X"]
        target = Target(root, plan.compression, plan.chunk, plan.shard)
        _matrix(source, target, "X", form)
        for name in source.parts.get("layers", []):
            with open_cells(path, layer=name) as layer:
                _matrix(layer, target, f"layers/{name}", form)
            done.append(f"layers/{name}")
        if source.parts.get("raw"):
            with open_cells(path, layer="raw") as raw:
                check_names(raw, is_zarr=not is_hdf5(root))
                _matrix(raw, target, "raw/X", form)
                write_var(root["raw"], raw, np.arange(raw.n_genes))
            done.append("raw/X")
        write_obs(root, source, np.arange(source.n_cells))
        write_var(root, source, np.arange(source.n_genes))
        with _input(path) as original:
            for name in _ARE_DICTS:
                if name in original and name != "layers":
                    _copy(original[name], root, name)
                elif name not in root:
                    root.create_group(name)
                    note(root[name], "dict", "0.1.0")
        if "layers" in root:
            note(root["layers"], "dict", "0.1.0")
        if "raw" in root:
            note(root["raw"], "raw", "0.1.0")
        note(root, "anndata", "0.1.0")
    return done


def _copy(node: Any, root: Any, name: str) -> None:
    """Copy an element that is neither matrix nor table; from HDF5 to HDF5 unchanged."""
    empty = is_group(node) and not len(node)
    if encoding(node) == "dict" and (empty or (is_hdf5(node) and is_hdf5(root))):
        if empty:
            note(root.create_group(name), "dict", "0.1.0")
        else:
            node.file.copy(node, root, name, expand_soft=True, expand_external=True)
        return
    import anndata.io  # takes most of a second

    anndata.io.write_elem(root, name, anndata.io.read_elem(node))


def _matrix(source: CellSource, target: Target, name: str, form: str) -> None:
    """Stream one matrix."""
    with console.progress(f"writing {name}", source.n_cells) as bar:
        if form == "csr":
            write_csr(source, target, name, bar)
        elif form == "csc":
            write_csc(source, target, name, bar)
        else:
            write_dense(source, target, name, bar)


@contextmanager
def _output(target: Path) -> Iterator[Any]:
    """Open a root group under a temporary name; rename it after success."""
    with outputs.whole(target) as aside:
        if target.suffix == ".h5ad":
            with writing(aside) as (file, _):
                yield file
        else:
            import zarr

            root = zarr.open_group(aside, mode="w", zarr_format=3)
            root.attrs[outputs.MADE_BY] = outputs.made_by()
            yield root


@contextmanager
def _input(path: Path) -> Iterator[Any]:
    """Open the root of an h5ad or zarr input; an empty mapping for other kinds."""
    import h5py

    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            yield file if "obs" in file else {}
    elif any((path / name).exists() for name in ("zarr.json", ".zgroup")):
        import zarr

        yield zarr.open_group(path, mode="r")
    else:
        yield {}
