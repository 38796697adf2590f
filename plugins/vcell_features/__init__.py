"""`vcell features`: tables of gene features for models of perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Features(DataOptions):
    """Settings of `vcell features`, the [features] table."""

    output: Path = option(
        Path("features"),
        made="into",
        short="-o",
        help="The folder to write to; one table for each source.",
    )
    rank: int = option(
        64, help="Number of features per gene from sets, networks and effects.", minimum=1
    )
    method: Literal["diffusion", "svd"] = option(
        "diffusion",
        help="Similarity of genes in a network: by random walks, or by shared neighbours.",
    )
    kind: Literal["auto", "sets", "network", "table", "effects"] = option(
        "auto", help="Kind of the sources; auto detects it and says so."
    )
    ids: Path | None = option(
        None,
        read=True,
        help="Table of ids and gene names, in its first two columns, for networks of ids (STRING's "
        "protein.info).",
    )
    weight: str | None = option(
        None, help="Column of a network's weights (default: the first column of numbers)."
    )
    minimum: float = option(0.0, help="Leave out edges with a lower weight.")
    overwrite: bool = option(default=False, help="Replace tables of the same names.")


@click.command("features")
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path))
@configured(Features)
def command(sources: tuple[Path, ...], config: Features) -> None:
    r"""Make tables of gene features, and list the targets that they cover.

    A source is a .gmt of gene sets (GO, Reactome, Hallmark), a network (STRING, BioGRID, any list
    of edges), a table of numbers for each gene (embeddings of proteins or texts), or the effects of
    another screen (vcell effects). Without sources, vcell describes the features that come with it.

    \b
    Examples: vcell features --cells cells.h5ad
              vcell features h.all.gmt BIOGRID.tab3.txt --cells cells.h5ad
              vcell features 9606.protein.links.txt.gz --ids 9606.protein.info.txt.gz --minimum 700
              vcell train-vcc cells.h5ad --features features
    """
    from vcell_features.work import run

    run(sources, config)


plugin = Plugin(
    name="features",
    summary="Make tables of gene features for perturbation models.",
    command=command,
    config=Features,
    needs=("numpy", "pandas", "scipy"),
)
