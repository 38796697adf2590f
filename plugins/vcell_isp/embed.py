"""Embed cells and genes into the obsm and varm of an .h5ad or a .zarr.

Tokens and embeddings are written block by block, so memory grows only with the names and labels of
the cells. For genes, sums over cells are kept in memory, one row per token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcell import console, outputs
from vcell.data import open_cells
from vcell.data.detect import require_counts
from vcell.data.embedding_file import AT_ONCE, embedding, new_cells
from vcell.errors import UserError
from vcell.geneformer import tokens
from vcell.geneformer.shifts import ShiftEngine
from vcell.gpu.accelerator import chosen_device
from vcell.nn.bert import Lengths
from vcell_isp.model import ModelReader, load, require

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.data import CellSource
    from vcell.geneformer.tokens import TokenCells
    from vcell_isp import IspEmbed

KEY = "X_geneformer"


def run(path: Path, config: IspEmbed) -> None:
    """Embed the cells and write the file."""
    out = config.output
    if out is None:
        raise UserError("no output is named", hint="add -o embedded.h5ad")
    outputs.check(out, inputs=[path], overwrite=config.overwrite, suffixes=(".h5ad", ".zarr"))
    require(config)
    with open_cells(path, config.layer) as source:
        require_counts(source, quiet=True)  # before loading a model, which takes long
    reader = load(config, chosen_device(config.device))
    model = reader.model
    with (
        open_cells(path, config.layer) as source,
        outputs.whole(out) as aside,
        new_cells(aside, out.suffix) as root,
    ):
        found = _Collected.of(model.shape.d_model, len(model.vocabulary) if config.genes else 0)
        _stream(source, reader, config, root, found)
        _rest(root, source, reader, found)
    facts = {
        "output": str(out), "cells": found.n_cells, "width": model.shape.d_model,
        "model": reader.text, "synthetic": model.synthetic,
        "genes": int((found.seen > 0).sum()) if config.genes else None,
    }  # fmt: skip
    console.result(facts, f"{console.count(found.n_cells, 'cell')} in obsm[{KEY!r}] of {out}")


@dataclass
class _Collected:
    """Results collected over the blocks.

    Attributes
    ----------
    rows
        Row numbers of the cells written, by block.
    sums, seen
        ``[V, d]`` sum of hidden states and ``[V]`` number of cells, of every token.
    """

    sums: NDArray[np.float64]
    seen: NDArray[np.int64]
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    n_cells: int = 0

    @classmethod
    def of(cls, width: int, n_tokens: int) -> _Collected:
        """Return empty results."""
        return cls(np.zeros((n_tokens, width)), np.zeros(n_tokens, np.int64))


def _stream(
    source: CellSource, reader: ModelReader, config: IspEmbed, root: Any, found: _Collected
) -> None:
    """Rank, embed and write the cells block by block."""
    model = reader.model
    engine = ShiftEngine(model, reader.n_layers, reader.readout)
    rows = tokens.passing(source, None)
    n = source.n_cells if rows is None else len(rows)
    table = embedding(root, KEY, n, model.shape.d_model)
    counts = tokens.Counts()
    with console.progress("embedding", n) as bar:
        for part in tokens.encode_chunks(
            source, model.vocabulary, model.shape.n_positions, rows=rows, column=config.gene_column
        ):
            expressed = counts.with_genes(part)
            for start in range(0, len(expressed), AT_ONCE):
                some = expressed.take(np.arange(start, min(start + AT_ONCE, len(expressed))))
                embedded = _embedded(some, engine, found if config.genes else None, bar)
                table[found.n_cells : found.n_cells + len(some)] = embedded
                found.rows.append(np.asarray(some.rows))
                found.n_cells += len(some)
            bar.advance(len(part) - len(expressed))
    counts.report(source.name)
    table.resize((found.n_cells, model.shape.d_model))


@torch.inference_mode()
def _embedded(
    cells: TokenCells, engine: ShiftEngine, found: _Collected | None, bar: Any
) -> NDArray[np.float32]:
    """Embed the cells of a block, as many at once as the device's token budget allows."""
    out = np.empty((len(cells), engine.model.shape.d_model), np.float32)
    lengths, at = cells.lengths, 0
    while at < len(cells):
        total = np.cumsum(lengths[at:])
        n = max(1, int(np.searchsorted(total, engine.budget, "right")))
        some = [cells[at + i] for i in range(min(n, len(cells) - at))]
        given = torch.from_numpy(np.concatenate(some).astype(np.int64)).to(engine.device)
        sizes = [len(cell) for cell in some]
        hidden = engine.bert.encode(given, Lengths.of(sizes), engine.n_layers)
        for number, (cell, own) in enumerate(zip(some, torch.split(hidden, sizes), strict=True)):
            out[at + number] = engine.pooled(own[None])[0].cpu().numpy()
            if found is not None:
                inner = slice(engine.frame.first, len(cell) - engine.frame.last)
                found.sums[cell[inner]] += own[inner].double().cpu().numpy()  # tokens are distinct
                found.seen[cell[inner]] += 1
        at += len(some)
        bar.advance(len(some))
    return out


def _rest(root: Any, source: CellSource, reader: ModelReader, found: _Collected) -> None:
    """Write the labels of the cells, and the genes with their embeddings."""
    import pandas as pd
    from anndata.io import write_elem
    from scipy.sparse import csr_matrix

    rows = np.concatenate(found.rows)
    obs = {
        name: _writable(np.asarray(source.obs(name).values)[rows]) for name in source.obs_columns
    }
    known, seen = reader.model.vocabulary, np.flatnonzero(found.seen)
    var: dict[str, Any] = {"symbol": known.symbols[seen], "token": seen}
    varm: dict[str, Any] = {}
    if len(found.seen):
        var["n_cells"] = found.seen[seen]
        varm[KEY] = (found.sums[seen] / found.seen[seen][:, None]).astype(np.float32)
    names = pd.Index(np.asarray(source.cells[rows]), dtype=str)
    parts = {
        "X": csr_matrix((len(rows), len(seen)), dtype=np.float32),
        "obs": pd.DataFrame(obs, index=names),
        "var": pd.DataFrame(var, index=pd.Index(known.ids[seen], dtype=str)),
        "varm": varm, "obsp": {}, "varp": {}, "layers": {},
        "uns": {
            "geneformer": {
                "model": reader.model.name, "checksum": reader.model.checksum,
                "layer": reader.n_layers, "readout": reader.readout,
                "synthetic": bool(reader.model.synthetic),
            }
        },
    }  # fmt: skip
    for name, part in parts.items():
        write_elem(root, name, part)


def _writable(values: NDArray[Any]) -> NDArray[Any]:
    """Return a column that anndata can write: text, with missing values as empty strings."""
    if values.dtype.kind != "O":
        return values
    return np.array(["" if v is None else str(v) for v in values], object)
