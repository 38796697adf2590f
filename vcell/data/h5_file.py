"""Opening HDF5 files: h5ad and 10x."""

from __future__ import annotations

from pathlib import Path

import h5py

from vcell.data import anndata_file
from vcell.data.chunked import array_of
from vcell.data.descriptor import Descriptor
from vcell.data.fault import reading
from vcell.data.nodes import is_group
from vcell.data.source import CellSource
from vcell.errors import UserError


def open_h5(path: Path, layer: str | None) -> CellSource:
    """Open an HDF5 file that holds cells."""
    with reading(str(path)):
        file = h5py.File(path, "r")
    try:
        with reading(str(path)):
            if "obs" in file and "var" in file:
                return _open_h5ad(file, path, layer)
            if any(is_group(node) and "barcodes" in node for node in file.values()):
                from vcell.data.tenx import open_tenx_h5

                return open_tenx_h5(file, path, layer)
            there = ", ".join(sorted(file)[:20]) or "nothing"
        raise UserError(
            f"{path} holds no cells: it has neither obs and var (h5ad) nor barcodes (10x), "
            f"only {there}"
        )
    except BaseException:
        file.close()
        raise


def _open_h5ad(file: h5py.File, path: Path, layer: str | None) -> CellSource:
    node, where, var = anndata_file.matrix_node(file, layer, str(path))
    raw = Descriptor(path)

    def close() -> None:
        raw.close()
        file.close()

    try:
        return CellSource(
            anndata_file.matrix(node, where, lambda array, at: array_of(array, at, raw)),
            anndata_file.frame(file, "obs", str(path)),
            anndata_file.frame(file, var, str(path)),
            paths=[path],
            name=str(path),
            layer=layer,
            parts={**anndata_file.parts(file), "format": "h5ad"},
            close=close,
            embeddings=anndata_file.embeddings(file),
        )
    except BaseException:
        raw.close()
        raise
