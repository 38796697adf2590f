"""`vcell convert`: write the same cells in another layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import OutputPath, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Settings of `vcell convert`, the [convert] table."""

    to: Literal["csr", "csc", "dense"] | None = option(
        None, help="Store matrices by cell, by gene, or dense (default: as they are)."
    )
    compression: Literal["gzip", "lzf", "lz4", "zstd", "none"] | None = option(
        None, help="How arrays are compressed (default: gzip in h5ad, lz4 in zarr)."
    )
    chunk: int = option(131_072, help="Elements per chunk.", minimum=1)
    shard: int = option(
        33_554_432,
        help="Elements per shard file of a zarr array; 0: one file per chunk.",
        minimum=0,
    )
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")

    def __post_init__(self) -> None:
        if self.shard and self.shard < self.chunk:
            raise ValueError("a shard must hold at least one chunk")


@click.command("convert")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=OutputPath(path_type=Path))
@configured(Convert)
def command(source: Path, target: Path, config: Convert) -> None:
    """Convert cells between h5ad and zarr, and between layouts.

    OUT ends in .h5ad or .zarr. X, layers and raw are streamed in bounded memory; obs, var, obsm
    and the rest are copied. IN may be anything that vcell reads, 10x files too.

    \b
    Examples:
      vcell convert cells.h5ad cells.zarr --compression zstd
      vcell convert cells.zarr by-gene.h5ad --to csc
    """  # noqa: D301  # click needs the \b itself
    from vcell_convert.work import run

    run(source, target, config)


plugin = Plugin(
    name="convert",
    summary="Convert cells between h5ad and zarr layouts.",
    command=command,
    config=Convert,
    needs=("anndata", "h5py", "zarr"),
)
