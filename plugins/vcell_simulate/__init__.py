"""`vcell simulate`: generate a perturbation screen with known effects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import OutputPath, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Settings of `vcell simulate`, the [simulate] table."""

    n_cells: int = option(
        6000, help="How many cells, controls included.", minimum=1, former=("cells",)
    )
    genes: int = option(2000, help="How many genes.", minimum=1)
    perturbations: int = option(60, help="How many perturbations.", minimum=1)
    umis: float = option(5000.0, help="Median library size.", minimum=1)
    null_fraction: float = option(
        0.1, help="Share of perturbations without any effect.", minimum=0, maximum=1
    )
    control_fraction: float = option(
        0.2, help="Share of cells that are controls.", minimum=0, maximum=0.99
    )
    batches: int = option(4, help="How many batches.", minimum=1)
    cell_types: int = option(1, help="How many cell types.", minimum=1)
    programmes: int = option(10, help="How many gene programmes.", minimum=1)
    effect: float = option(1.0, help="Scale of the programme-wide effects.", minimum=0)
    batch_effect: float = option(
        0.1, help="Standard deviation of the batch effects (log scale).", minimum=0
    )
    seed: int = option(0, help="The same seed gives identical files.", minimum=0)
    draw: int = option(0, help="Draw other cells under the same truth.", minimum=0)
    compress: bool = option(default=False, help="Compress the matrix (gzip): smaller and slower.")
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")


@click.command("simulate")
@click.argument("out", type=OutputPath(path_type=Path))
@configured(Simulate)
def command(out: Path, config: Simulate) -> None:
    r"""Simulate a perturbation screen with a known ground truth.

    Writes OUT (.h5ad or .zarr), raw counts with target_gene, batch and cell_type of every cell,
    and next to it .truth.npz, the true effect of each perturbation on each gene.

    \b
    Example: vcell simulate cells.h5ad --n-cells 20000 --genes 5000 --perturbations 100
    """
    from vcell_simulate.work import run

    run(out, config)


plugin = Plugin(
    name="simulate",
    summary="Simulate a perturbation screen with a known ground truth.",
    command=command,
    config=Simulate,
    needs=("anndata", "h5py", "numba"),
)
