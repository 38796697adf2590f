"""Embed cells and genes into the obsm and varm of an .h5ad."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console, outputs
from vcell.data import open_cells
from vcell.data.h5_writing import mark
from vcell.errors import UserError
from vcell.geneformer import tokens
from vcell.geneformer.shifts import ShiftEngine
from vcell.nn.bert import Lengths
from vcell_isp.model import ModelReader, device_of, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.geneformer.tokens import TokenCells
    from vcell_isp import IspEmbed

KEY = "X_geneformer"


def run(path: Path, config: IspEmbed) -> None:
    """Embed and write."""
    out = config.output
    if out is None:
        raise UserError("no output is named", hint="add -o embedded.h5ad")
    outputs.check(out, inputs=[path], overwrite=config.overwrite, suffixes=(".h5ad",))
    reader = load(config, device_of(config.device))
    model = reader.model
    with open_cells(path, config.layer) as source:
        cells = tokens.encode(
            source, model.vocabulary, model.shape.n_positions, column=config.gene_column
        )
        obs = {name: np.asarray(source.obs(name).values)[cells.rows] for name in source.obs_columns}
        names = np.asarray(source.cells[cells.rows])
    embedded, genes = _embedded(cells, reader, genes=config.genes)
    write(out, embedded, names, obs, genes, reader)
    facts = {
        "output": str(out), "cells": len(cells), "width": embedded.shape[1],
        "model": reader.text, "synthetic": model.synthetic,
        "genes": None if genes is None else int((genes[1] > 0).sum()),
    }  # fmt: skip
    console.result(facts, f"{len(cells):,} cells in obsm[{KEY!r}] of {out}")


def _embedded(
    cells: TokenCells, reader: ModelReader, *, genes: bool
) -> tuple[NDArray[np.float32], tuple[NDArray[np.float64], NDArray[np.int64]] | None]:
    """Return embeddings of cells, and the mean and count of every gene's token."""
    engine = ShiftEngine(reader.model, reader.n_layers, reader.readout)
    d, n_tokens = reader.model.shape.d_model, len(reader.model.vocabulary)
    out = np.empty((len(cells), d), np.float32)
    sums, seen = np.zeros((n_tokens if genes else 0, d)), np.zeros(n_tokens, np.int64)
    with console.progress("embedding", len(cells)) as bar:
        for number in range(len(cells)):
            if genes:
                out[number] = _add(cells[number], engine, sums, seen)
            else:
                out[number] = engine.embed(cells[number])
            bar.advance()
    if not genes:
        return out, None
    return out, (sums / np.maximum(seen, 1)[:, None], seen)


@torch.inference_mode()
def _add(
    cell: NDArray[np.int32],
    engine: ShiftEngine,
    sums: NDArray[np.float64],
    seen: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Embed one cell, and add its tokens to the sums of their genes."""
    given = torch.from_numpy(cell.astype(np.int64)).to(engine.device)
    hidden = engine.bert.encode(given, Lengths((len(cell),)), engine.n_layers)
    own = slice(engine.frame.first, len(cell) - engine.frame.last)
    sums[cell[own]] += hidden[own].double().cpu().numpy()  # a token occurs once in a cell
    seen[cell[own]] += 1
    pooled: NDArray[np.float32] = engine.pooled(hidden[None])[0].cpu().numpy()
    return pooled


def write(
    out: Path,
    embedded: NDArray[np.float32],
    names: NDArray[Any],
    obs: dict[str, NDArray[Any]],
    genes: tuple[NDArray[np.float64], NDArray[np.int64]] | None,
    reader: ModelReader,
) -> None:
    """Write cells (obs, obsm) and genes (var, varm), aside and then in place."""
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    known = reader.model.vocabulary
    kept = np.zeros(0, np.int64) if genes is None else np.flatnonzero(genes[1] > 0)
    adata = anndata.AnnData(
        csr_matrix((len(embedded), len(kept)), dtype=np.float32),
        obs=pd.DataFrame(
            {name: _writable(values) for name, values in obs.items()},
            index=pd.Index(names, dtype=str),
        ),
        var=pd.DataFrame(
            {"symbol": known.symbols[kept], "token": kept},
            index=pd.Index(known.ids[kept], dtype=str),
        ),
    )
    adata.obsm[KEY] = embedded
    if genes is not None:
        adata.varm[KEY] = genes[0][kept].astype(np.float32)
        adata.var["n_cells"] = genes[1][kept]
    adata.uns["geneformer"] = {
        "model": reader.model.name, "checksum": reader.model.checksum,
        "layer": reader.n_layers, "readout": reader.readout,
        "synthetic": bool(reader.model.synthetic),
    }  # fmt: skip
    with outputs.whole(out) as aside:
        adata.write_h5ad(aside)
        mark(aside)


def _writable(values: NDArray[Any]) -> NDArray[Any]:
    """Return a column as anndata can write it: texts with missing ones as empty."""
    if values.dtype.kind != "O":
        return values
    return np.array(["" if v is None else str(v) for v in values], object)
