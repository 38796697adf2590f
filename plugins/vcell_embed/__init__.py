"""`vcell embed`: latent coordinates and labels of any cells, by a run of train-gmvae."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Settings of `vcell embed`, the [embed] table."""

    output: Path | None = option(None, made="whole", short="-o", help="The .h5ad to write.")
    layer: str | None = option(
        None, help="The layer that holds the counts; 'raw' for raw/X (default: X)."
    )
    unknown: float = option(
        0.01,
        help="Share of the run's held-out cells that would be called unknown: sets the threshold.",
        minimum=0,
        maximum=1,
    )
    adapt: bool = option(
        default=False, help="Remove the shift of the new cells in the latent space."
    )
    adapt_by: str | None = option(
        None, help="The obs column of batches; each gets its own shift (implies --adapt)."
    )
    least_genes: float = option(
        0.2,
        help="Minimum share of the run's genes that the cells must have.",
        minimum=0,
        maximum=1,
    )
    runs: Path = option(Path("runs"), help="Folder in which runs are looked up by name.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="Where to compute.")
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")


@click.command("embed")
@click.argument("run", metavar="RUN")
@click.argument("cells", metavar="CELLS", type=click.Path(path_type=Path))
@configured(Embed)
def command(run: str, cells: Path, config: Embed) -> None:
    r"""Embed cells and predict their labels with a run of train-gmvae.

    Writes the cells with obsm X_gmvae, and in obs gmvae_label, gmvae_probability,
    gmvae_component, gmvae_ood (how far a cell is from everything learnt) and gmvae_unknown.
    Genes are found by name or alias. Nothing is retrained.

    \b
    Example: vcell embed latest other_study.h5ad -o named.h5ad
             vcell embed latest other_study.h5ad -o named.h5ad --adapt-by donor
    """
    from vcell_embed.work import embed

    embed(run, cells, config)


plugin = Plugin(
    name="embed",
    summary="Embed and label cells with a run of train-gmvae.",
    command=command,
    config=Embed,
    needs=("torch", "h5py", "numba", "safetensors"),
)
