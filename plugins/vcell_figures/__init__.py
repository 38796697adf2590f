"""`vcell figures`: figures of a patient classifier, each with its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import configured, option
from vcell.plugin import Plugin

FIGURES = ("all", "attention", "roc", "calibration", "ablation", "latent")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Settings of `vcell figures`, the [figures] table."""

    output: Path = option(
        Path("figures"), made="into", help="The folder for the files.", short="-o"
    )
    cells: Path | None = option(
        None, read=True, help="latent: the cells to draw (default: those that the run read)."
    )
    label: str | None = option(
        None, help="latent: the obs column that colours them (default: the run's labels)."
    )
    seed: int = option(0, help="latent: the seed of UMAP and of which cells are drawn.", minimum=0)
    runs: Path = option(Path("runs"), help="The folder of run directories.")
    overwrite: bool = option(default=False, help="Replace figures that vcell made before.")


@click.command("figures")
@click.argument("what", type=click.Choice(FIGURES))
@click.argument("run", default="latest")
@configured(Figures)
def command(what: str, run: str, config: Figures) -> None:
    r"""Draw figures: SVG, PNG if matplotlib is installed, and a CSV of the data.

    attention, roc, calibration and ablation need a run of train-bulk. latent draws cells before and
    after a run of train-gmvae. all draws whatever the run has.

    \b
    Example: vcell figures roc latest
             vcell figures all runs/RUN -o figures
             vcell figures latent runs/GMVAE-RUN --cells cells.h5ad --label cell_type
    """
    from vcell_figures.work import draw

    draw(what, run, config)


plugin = Plugin(
    name="figures",
    summary="Draw figures of a run of train-bulk, each with its data.",
    command=command,
    config=Figures,
    needs=("torch", "scipy"),
)
