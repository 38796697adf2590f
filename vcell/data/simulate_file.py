"""Stream simulated cells to .h5ad or .zarr in AnnData's layout, in bounded memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data.block import Csr
from vcell.data.write import CellWriter, Compression
from vcell.errors import UserError
from vcell.outputs import MADE_BY, made_by, together

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell.data.simulate import SimulatedCells, Simulator

ENDINGS = (".h5ad", ".zarr")
_COLUMNS = ("target_gene", "batch", "cell_type")
_CHUNK = 1 << 20  # values in a chunk of a zarr array


def truth_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a simulated file's truth: cells.h5ad -> cells.truth.npz."""
    return Path(path).with_suffix(".truth.npz")


def write(sim: Simulator, path: str | os.PathLike[str], *, compress: bool = False) -> Path:
    """Write cells and truth, both or neither; return the truth's path."""
    path, truth = Path(path), truth_path(path)
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: simulated cells are written as .h5ad or .zarr")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder", hint="create it first")
    with (
        together(path, truth) as (cells_aside, truth_aside),
        console.progress(f"simulating {path.name}", sim.design.cells) as bar,
    ):
        sim.truth.save(truth_aside)
        to = _to_h5ad if path.suffix == ".h5ad" else _to_zarr
        for block in to(sim, cells_aside, compress=compress):
            bar.advance(len(block))
    return truth


def _codes(block: SimulatedCells) -> dict[str, np.ndarray]:
    return dict(zip(_COLUMNS, (block.perturbation, block.batch, block.cell_type), strict=True))


def _to_h5ad(sim: Simulator, path: Path, *, compress: bool) -> Iterator[SimulatedCells]:
    """Write block after block, and yield each after writing."""
    categories = dict(zip(_COLUMNS, sim.categories, strict=True))
    kind: Compression = "gzip" if compress else None
    with CellWriter(path, sim.truth.genes, obs=categories, compression=kind) as out:
        for block in sim.blocks():
            names = sim.cell_names(block.start, block.start + len(block))
            out.append(Csr(block.indptr, block.indices, block.data), _codes(block), names)
            yield block


def _to_zarr(sim: Simulator, aside: Path, *, compress: bool) -> Iterator[SimulatedCells]:
    """Write block after block, and yield each after writing; chunks are compressed or raw."""
    import anndata
    import zarr

    root = zarr.open_group(aside, mode="w")
    with anndata.settings.override(auto_shard_zarr_v3=False):
        anndata.io.write_elem(root, "/", sim.empty())
    root.attrs[MADE_BY] = made_by()
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
