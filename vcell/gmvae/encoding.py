"""Encode the cells of any file by a trained network: match genes by name, read by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.genes.required import required_genes
from vcell.gmvae.cells import compressed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.data.block import Block
    from vcell.gmvae.trained import Trained
    from vcell.nn.compressed import CompressedRows

    Array = NDArray[Any]

AT_ONCE = 4096


@dataclass(frozen=True)
class GenesFound:
    """The run's genes in a file of cells.

    Attributes
    ----------
    place
        The run's column for each column of the file, or -1.
    missing, renamed
        The run's genes that the file lacks, and the number with another name there.
    """

    place: Array
    missing: tuple[str, ...]
    renamed: int


def matched(
    source: CellSource, trained: Trained, least: float, *, quiet: bool = False
) -> GenesFound:
    """Find the run's genes in the file, and report their number."""
    used = range(len(trained.genes))
    match, missing = required_genes(source, trained.genes, used, least, quiet=quiet)
    if missing and not quiet:
        console.say(f"missing and counted as zero: {console.count(len(missing), 'gene')}")
    found = np.flatnonzero(match.index >= 0)
    _, first = np.unique(match.index[found], return_index=True)  # one gene for each column
    place = np.full(source.n_genes, -1, np.int32)
    place[match.index[found[first]]] = found[first]
    return GenesFound(place, missing, len(match.renamed))


def encoded(
    source: CellSource,
    trained: Trained,
    genes: GenesFound,
    label: str,
    rows: NDArray[np.int64] | None = None,
) -> Iterator[tuple[NDArray[np.int64], Array, Array]]:
    """Yield cells a block at a time: their rows, latent means and mixture terms."""
    with console.progress(label, source.n_cells if rows is None else len(rows)) as bar:
        for block in source.chunks(rows, max_rows=AT_ONCE):
            yield block.rows, *trained.encode(batch_of(block, trained, genes))
            bar.advance(len(block))


def batch_of(block: Block, trained: Trained, genes: GenesFound) -> CompressedRows:
    """Make a batch in the run's columns; the batch of each cell is unknown."""
    import torch

    column = genes.place[block.indices]
    kept = column >= 0
    borders = np.concatenate([[0], np.cumsum(kept)])[block.indptr - block.indptr[0]]
    return compressed(
        borders.astype(np.int64), column[kept], block.data[kept].astype(np.float32),
        len(trained.genes), trained.target, batch=torch.full((len(block),), -1),
    )  # fmt: skip
