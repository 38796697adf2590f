"""`vcell predict`: cells of perturbations nobody measured, from a trained run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Predict(DataOptions):
    """The [predict] table."""

    perturbations: tuple[str, ...] = option(
        (),
        help="What to predict: target genes, or a CSV with a target_gene column and perhaps "
        "n_cells (default: the perturbations that the run held out).",
    )
    output: Path = option(Path("prediction.h5ad"), help="The file to write.", short="-o")
    n_cells: int | None = option(
        None,
        help="Cells of each perturbation (default: as many as measured, else the median of those).",
        minimum=1,
    )
    controls: int | None = option(
        None, help="Control cells to put beside them (default: all; 0: none).", minimum=0
    )
    model: str | None = option(
        None, help="Another model on the same run, as `mean` (default: the one trained)."
    )
    unknown: Literal["error", "mean"] = option(
        "error", help="Target without features: refuse, or predict the mean effect and say so."
    )
    runs: Path = option(Path("runs"), help="Folder of the run directories.")
    seed: int = option(0, help="Seed of the choice of control cells.", minimum=0)


@click.command("predict")
@click.argument("run", default="latest")
@configured(Predict)
def command(run: str, config: Predict) -> None:
    r"""Predict the cells of perturbations nobody measured, from a trained RUN.

    Cells are real control cells moved by the predicted effect, so that they spread as real ones
    do, as log1p values on the scale of the training.

    \b
    Example: vcell predict latest -o prediction.h5ad
             vcell predict latest --perturbations TP53,MYC --n-cells 400 -o two.h5ad
    """
    from vcell_predict.work import predict

    predict(run, config)


plugin = Plugin(
    name="predict",
    summary="Predict cells of unseen perturbations.",
    command=command,
    config=Predict,
    needs=("torch", "anndata", "scipy"),
)
