"""`vcell pseudobulk`: sums of cells drawn by type, with the fractions that were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import CellsPath, configured, option
from vcell.config.data import NO_LABEL
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Pseudobulk:
    """Settings of `vcell pseudobulk`, the [pseudobulk] table."""

    output: Path | None = option(None, made="whole", short="-o", help="The .h5ad or .npz to write.")
    labels: str | None = option(None, help="The obs column of cell types.")
    layer: str | None = option(
        None, help="The layer that holds the counts; 'raw' for raw/X (default: X)."
    )
    samples: int = option(1000, help="Number of samples per group.", minimum=1)
    cells: int = option(500, help="Cells of each sample, drawn with replacement.", minimum=1)
    mode: Literal["dirichlet", "sparse", "rare", "own"] = option(
        "dirichlet",
        help="Fractions to draw: all types; some left out; some rare; or those of the group's own "
        "cells.",
    )
    by: str | None = option(
        None, help="The obs column of patients: each gets samples of only its own cells."
    )
    split_by: str | None = option(
        None,
        help="The obs column of splits, such as train and test: no sample mixes cells of "
        "two splits.",
    )
    prior: Literal["flat", "own"] = option(
        "flat", help="Mean of the Dirichlet: the same for all types, or the group's own fractions."
    )
    concentration: float = option(
        1.0, help="Mean parameter of the Dirichlet; higher makes samples more alike.", minimum=1e-3
    )
    sparse_samples: float = option(
        0.5, help="sparse: share of the samples that lack types.", minimum=0, maximum=1
    )
    sparse_types: float = option(
        0.5, help="sparse: share of the types that they lack.", minimum=0, maximum=1
    )
    rare_samples: float = option(
        0.7, help="rare: share of the samples with rare types.", minimum=0, maximum=1
    )
    rare_types: float = option(
        0.4,
        help="rare: share of the types that are rare, chosen by the seed.",
        minimum=0,
        maximum=1,
    )
    rare: tuple[str, ...] = option(
        (), help="rare: names of the rare types, instead of a random choice."
    )
    rare_most: float = option(
        0.03, help="rare: largest fraction of a rare type.", minimum=0, maximum=1
    )
    unlabelled: tuple[str, ...] = option(
        NO_LABEL, help="Labels that mean 'unlabelled'. Such cells are never drawn."
    )
    deconvolve: bool = option(
        default=False, help="Estimate the fractions by NNLS and EM, and score them."
    )
    signature_genes: int = option(2000, help="Genes that --deconvolve uses; 0 for all.", minimum=0)
    memory: int = option(
        256, help="MiB for counts and sums; with less, the file is read more often.", minimum=1
    )
    seed: int = option(0, help="Seed of all draws.", minimum=0)
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")


@click.command("pseudobulk")
@click.argument("file", metavar="CELLS", type=CellsPath(path_type=Path))
@configured(
    Pseudobulk,
    first=(
        "output",
        "overwrite",
        "labels",
        "samples",
        "cells",
        "mode",
        "by",
        "split_by",
        "deconvolve",
        "seed",
    ),
)
def command(file: Path, config: Pseudobulk) -> None:
    r"""Sum randomly drawn cells of each type into bulk samples of known composition.

    Each sample has exactly --cells cells; its label is the composition of the drawn cells. Cells
    without a label are never drawn. With --by or --split-by each value gets --samples samples, made
    only of its own cells, and types that it lacks are left out before drawing.

    \b
    Example: vcell pseudobulk cells.h5ad --labels cell_type --samples 5000 -o bulk.h5ad
             vcell pseudobulk cells.h5ad --labels cell_type --by donor --samples 10 -o donors.h5ad
             vcell pseudobulk cells.h5ad --labels cell_type --mode sparse --split-by split \
                 --deconvolve -o bulk.h5ad
    """
    from vcell_pseudobulk.work import make

    make(file, config)


plugin = Plugin(
    name="pseudobulk",
    summary="Sum up cells drawn by type, and deconvolve the sums.",
    command=command,
    config=Pseudobulk,
    needs=("numba", "h5py", "scipy"),
)
