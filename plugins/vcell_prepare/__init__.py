"""`vcell prepare`: cells in, training-ready store out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import ManyFiles, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Prepare(ManyFiles):
    """Settings of `vcell prepare`, the [prepare] table."""

    output: Path | None = option(
        None,
        made="whole",
        short="-o",
        help="The store to make (default: NAME.store.zarr in the project, else in the cache).",
    )
    min_genes: int = option(0, help="Leave out cells with fewer genes.", minimum=0)
    min_counts: float = option(0.0, help="Leave out cells with fewer counts.", minimum=0)
    max_mito: float | None = option(
        None, help="Leave out cells with a larger mitochondrial share (0.2 for 20 %).", minimum=0
    )
    mito_prefix: str = option("MT-", help="Prefix of the names of mitochondrial genes.")
    min_cells: int = option(
        0, help="Leave out genes seen in fewer of the remaining cells.", minimum=0
    )
    doublet_column: str | None = option(
        None, help="The obs column that marks doublets, which are left out."
    )
    genes: Path | None = option(
        None,
        read=True,
        help="Keep only these genes, in this order: selected_genes.csv, or one name per line.",
    )
    n_genes: int | None = option(
        None, help="Use only this many of --genes, from the first.", minimum=1
    )
    target_sum: float | None = option(
        None, help="Library size to store for log-normalisation (default: the median).", minimum=1
    )
    group_by: tuple[str, ...] = option(
        (),
        help="Keep cells with equal values of these obs columns together (default: shuffle "
        "all cells).",
    )
    codec: Literal["lz4", "zstd", "none"] = option(
        "lz4", help="Compression: lz4 is fastest, zstd smallest, none can be memory-mapped."
    )
    seed: int = option(0, help="Decides the order of the cells.", minimum=0)
    overwrite: bool = option(default=False, help="Replace another store of the same name.")

    def __post_init__(self) -> None:
        if self.max_mito is not None and self.max_mito > 1:
            raise ValueError("max-mito is a share: 0.2 for 20 %")
        if self.n_genes is not None and self.genes is None:
            raise ValueError("n-genes needs genes")


@click.command("prepare")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@configured(
    Prepare,
    first=(
        "output",
        "overwrite",
        "min_genes",
        "max_mito",
        "min_cells",
        "genes",
        "n_genes",
        "group_by",
        "layer",
    ),
)
def command(files: tuple[Path, ...], config: Prepare) -> None:
    """Make a training-ready store of one or several files.

    Filters and shuffles the cells and writes them compressed, checksummed and readable by anndata.
    Memory stays bounded; after a stop or a kill, the same command continues; an existing store is
    used as it is.

    \b
    Examples:
      vcell prepare cells.h5ad -o cells.store.zarr --min-genes 200 --max-mito 0.2
      vcell prepare plate1.h5ad plate2.h5ad -o all.store.zarr --group-by perturbation,batch
      vcell prepare cells.h5ad -o hvg.store.zarr --genes genes/selected_genes.csv --n-genes 2000
    """  # noqa: D301  # click needs the \b itself
    from vcell_prepare.work import run

    run(files, config)


plugin = Plugin(
    name="prepare",
    summary="Make a training-ready store: filtered, shuffled, compressed, checksummed.",
    command=command,
    config=Prepare,
    needs=("anndata", "numba", "zarr"),
)
