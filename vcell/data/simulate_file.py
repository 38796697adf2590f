"""Stream simulated cells to an .h5ad in AnnData's own layout; memory does not grow with cells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    import h5py

    from vcell.data.simulate import Cells, Simulator

_COLUMNS = ("target_gene", "batch", "cell_type")
_CHUNK = 1 << 17  # values an HDF5 chunk holds


def truth_path(path: str | os.PathLike[str]) -> Path:
    """Return where the truth of a simulated file lies: cells.h5ad -> cells.truth.npz."""
    return Path(path).with_suffix(".truth.npz")


def write(sim: Simulator, path: str | os.PathLike[str], *, compress: bool = False) -> Path:
    """Write cells and truth; each appears whole or not at all. Returns the truth's path."""
    import h5py

    path = Path(path)
    if path.suffix != ".h5ad":
        raise UserError(f"{path}: simulated cells are written as .h5ad")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder", hint="create it first")
    truth = truth_path(path)
    sim.truth.save(truth)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with (
            h5py.File(beside, "w") as file,
            console.progress(f"simulating {path.name}", sim.design.cells) as bar,
        ):
            matrix = _lay_out(file, sim, "gzip" if compress else None)
            for block in sim.blocks():
                _append(file, matrix, block, sim)
                bar.advance(len(block))
        os.replace(beside, path)  # noqa: PTH105
    finally:
        beside.unlink(missing_ok=True)
    return truth


def _lay_out(file: h5py.File, sim: Simulator, compression: str | None) -> h5py.Group:
    """Write everything but the cells; returns the matrix's group."""
    import anndata.io
    import h5py
    import pandas as pd

    n = sim.design.cells
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        anndata.io.write_elem(file, name, {})
    anndata.io.write_elem(file, "var", pd.DataFrame(index=sim.truth.genes.astype(object)))
    matrix = file.create_group("X")
    matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    matrix.attrs["shape"] = np.array([n, sim.design.genes])
    for name, dtype in (("data", np.float32), ("indices", np.int32)):
        matrix.create_dataset(
            name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,), compression=compression
        )
    matrix.create_dataset("indptr", data=np.zeros(n + 1, np.int64))
    obs = file.create_group("obs")
    obs.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
    obs.attrs.update({"_index": "_index", "column-order": np.array(_COLUMNS, dtype=object)})
    index = obs.create_dataset("_index", (n,), h5py.string_dtype())
    index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    for name, categories in zip(_COLUMNS, sim.categories, strict=True):
        column = pd.Categorical.from_codes(np.zeros(0, int), categories)
        anndata.io.write_elem(obs, name, column)
        codes, attrs = obs[name]["codes"], dict(obs[name]["codes"].attrs)
        del obs[name]["codes"]
        obs[name].create_dataset("codes", (n,), codes.dtype).attrs.update(attrs)
    return matrix


def _append(file: h5py.File, matrix: h5py.Group, block: Cells, sim: Simulator) -> None:
    """Write one block's counts and labels behind those before it."""
    start, stop = block.start, block.start + len(block)
    filled = matrix["data"].shape[0]
    for name, values in (("data", block.data), ("indices", block.indices)):
        matrix[name].resize((filled + len(values),))
        matrix[name][filled:] = values
    matrix["indptr"][start + 1 : stop + 1] = block.indptr[1:] + filled
    obs: Any = file["obs"]
    obs["_index"][start:stop] = sim.cell_names(start, stop)
    for name in _COLUMNS:
        codes = block.perturbation if name == "target_gene" else getattr(block, name)
        obs[name]["codes"][start:stop] = codes
