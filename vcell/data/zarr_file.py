"""Opening zarr folders that anndata wrote: formats 2 and 3, sharded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vcell.data import anndata_file
from vcell.data.fault import reading
from vcell.data.nodes import is_group
from vcell.data.sharded import Shards
from vcell.data.source import CellSource
from vcell.errors import UserError


def open_zarr(path: Path, layer: str | None) -> CellSource:
    """Open a zarr folder that holds cells."""
    import zarr

    with reading(str(path)):
        # Consolidated metadata help only remote stores; here they might be stale.
        root: Any = zarr.open_group(str(path), mode="r", use_consolidated=False)
        if not is_group(root) or "obs" not in root or "var" not in root:
            there = ", ".join(sorted(root)[:20]) if is_group(root) else "one array"
            raise UserError(
                f"{path} holds no cells: it lacks obs or var, and has only {there or 'nothing'}"
            )
        node, where, var = anndata_file.matrix_node(root, layer, str(path))
        shards = Shards(path)
        return CellSource(
            anndata_file.matrix(node, where, shards.array_of),
            anndata_file.frame(root, "obs", str(path)),
            anndata_file.frame(root, var, str(path)),
            paths=[path],
            name=str(path),
            layer=layer,
            close=shards.close,
            embeddings=anndata_file.embeddings(root),
            parts={**anndata_file.parts(root), "format": f"zarr v{root.metadata.zarr_format}"},
        )
