"""Stream simulated cells to .h5ad or .zarr in AnnData's layout, the matrix never in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data.block import Csr
from vcell.data.write import CellWriter, Compression
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell.data.simulate import Cells, Simulator

_COLUMNS = ("target_gene", "batch", "cell_type")
_CHUNK = 1 << 20  # values in a chunk of a zarr array


def truth_path(path: str | os.PathLike[str]) -> Path:
    """Return where the truth of a simulated file lies: cells.h5ad -> cells.truth.npz."""
    return Path(path).with_suffix(".truth.npz")


def write(sim: Simulator, path: str | os.PathLike[str], *, compress: bool = False) -> Path:
    """Write cells and truth; each appears whole or not at all. Returns the truth's path."""
    path = Path(path)
    if path.suffix not in (".h5ad", ".zarr"):
        raise UserError(f"{path}: simulated cells are written as .h5ad or .zarr")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder", hint="create it first")
    sim.truth.save(truth_path(path))
    with console.progress(f"simulating {path.name}", sim.design.cells) as bar:
        to = _to_h5ad if path.suffix == ".h5ad" else _to_zarr
        for block in to(sim, path, compress=compress):
            bar.advance(len(block))
    return truth_path(path)


def _codes(block: Cells) -> dict[str, np.ndarray]:
    return dict(zip(_COLUMNS, (block.perturbation, block.batch, block.cell_type), strict=True))


def _to_h5ad(sim: Simulator, path: Path, *, compress: bool) -> Iterator[Cells]:
    """Write block after block, yielding each that was written."""
    categories = dict(zip(_COLUMNS, sim.categories, strict=True))
    kind: Compression = "gzip" if compress else None
    with CellWriter(path, sim.truth.genes, obs=categories, compression=kind) as out:
        for block in sim.blocks():
            names = sim.cell_names(block.start, block.start + len(block))
            out.append(Csr(block.indptr, block.indices, block.data), _codes(block), names)
            yield block


def _to_zarr(sim: Simulator, path: Path, *, compress: bool) -> Iterator[Cells]:
    """Write block after block, yielding each that was written; chunks are compressed or raw."""
    import anndata
    import zarr

    if path.exists() and not (path / "zarr.json").is_file():
        raise UserError(f"{path} exists and is no zarr folder", hint="give another name")
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        root = zarr.open_group(beside, mode="w")
        with anndata.settings.override(auto_shard_zarr_v3=False):
            anndata.io.write_elem(root, "/", sim.empty())
        del root["X"]
        matrix = root.create_group("X")
        shape = [sim.design.cells, sim.design.genes]
        matrix.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape}
        )
        layout: dict[str, Any] = {"shape": (0,), "chunks": (_CHUNK,)}
        if not compress:
            layout["compressors"] = None
        data = matrix.create_array("data", dtype="float32", **layout)
        indices = matrix.create_array("indices", dtype="int32", **layout)
        indptr = [np.zeros(1, np.int64)]
        for block in sim.blocks():
            data.append(block.data)
            indices.append(block.indices)
            indptr.append(block.indptr[1:] + indptr[-1][-1])
            yield block
        matrix.create_array("indptr", data=np.concatenate(indptr))
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
