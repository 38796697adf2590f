"""Cells of an AnnData object in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from vcell.data.arrays import PlainArray
from vcell.data.frame import PandasFrame
from vcell.data.matrix import CsrMatrix, DenseMatrix, Layout, Matrix
from vcell.data.source import CellSource
from vcell.errors import UserError
from vcell.suggest import did_you_mean

NAME = "the AnnData in memory"


def open_anndata(adata: Any, layer: str | None) -> CellSource:
    """Wrap an AnnData in a `CellSource`."""
    values, var = _choose(adata, layer)
    parts = {"layers": sorted(adata.layers), "raw": adata.raw is not None, "format": "memory",
             "obsm": sorted(adata.obsm), "uns": sorted(adata.uns)}  # fmt: skip
    return CellSource(
        matrix_of(values, NAME), PandasFrame(adata.obs), PandasFrame(var), name=NAME, layer=layer,
        parts=parts, embeddings=dict(adata.obsm),
    )  # fmt: skip


def _choose(adata: Any, layer: str | None) -> tuple[Any, Any]:
    if layer is None or layer == "X":
        if adata.X is None:
            raise UserError(f"{NAME} has no X", hint=f"its layers: {', '.join(adata.layers)}")
        return adata.X, adata.var
    if layer in ("raw", "raw/X"):
        if adata.raw is None:
            raise UserError(f"{NAME} has no raw", hint="leave out the layer to read X")
        return adata.raw.X, adata.raw.var
    if layer not in adata.layers:
        raise UserError(
            f"{NAME} has no layer {layer!r}{did_you_mean(layer, adata.layers)}",
            hint=f"its layers: {', '.join(adata.layers) or 'none'}",
        )
    return adata.layers[layer], adata.var


def matrix_of(values: Any, name: str) -> Matrix:
    """Wrap a scipy or numpy matrix in a `Matrix`."""
    if hasattr(values, "tocsr"):
        csr = values.tocsr()
        nbytes = csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes
        layout = Layout(values.format, "none", None, str(csr.indices.dtype), nbytes)
        return CsrMatrix(
            PlainArray(csr.data, f"{name}/data"), PlainArray(csr.indices, f"{name}/indices"),
            csr.indptr, csr.shape, layout,
        )  # fmt: skip
    dense = np.asarray(values)
    layout = Layout("dense", "none", None, None, dense.nbytes)
    return DenseMatrix(PlainArray(dense, name), layout)
