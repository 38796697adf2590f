"""`vcell demo`: the complete workflow, on simulated cells or on your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Settings of `vcell demo`, the [demo] table."""

    output: Path = option(
        Path("vcell-demo"), made="into", help="Folder for all outputs.", short="-o"
    )
    data: Path | None = option(None, read=True, help="Your own cells instead of simulated ones.")
    n_cells: int = option(8000, help="Simulated cells.", minimum=1, former=("cells",))
    genes: int = option(2000, help="Simulated genes.", minimum=1)
    perturbations: int = option(80, help="Simulated perturbations.", minimum=5)
    select: int = option(1000, help="Genes to select for the model.", minimum=1)
    seed: int = option(0, help="The same seed gives the same cells and scores.", minimum=0)


@click.command("demo")
@configured(Demo)
def command(config: Demo) -> None:
    r"""Run the complete workflow once: choose genes, train, predict, score.

    Simulates a perturbation screen with a known truth, holds perturbations out, and compares the
    model's predictions of them with the mean baseline and with the best possible score. It needs no
    network and no GPU. After an interruption, the same command continues; after the end, it reuses
    the cells.

    \b
    Example: vcell demo
             vcell demo --data my-screen.h5ad -o my-demo
    """
    from vcell_demo.work import run

    run(config)


plugin = Plugin(
    name="demo",
    summary="The complete workflow on simulated cells: train, predict, score.",
    command=command,
    config=Demo,
    needs=("torch", "anndata", "h5py", "numba", "scipy"),
)
