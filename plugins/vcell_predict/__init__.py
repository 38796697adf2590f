"""`vcell predict`: cells of unmeasured perturbations, from one or more trained runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin

MODES: tuple[Literal["residual", "mean", "counts"], ...] = ("residual", "mean", "counts")


@dataclass(frozen=True, kw_only=True)
class Predict(DataOptions):
    """Settings of `vcell predict`, the [predict] table."""

    perturbations: tuple[str, ...] = option(
        (),
        help="What to predict: names, or a CSV with a target_gene column and perhaps n_cells, "
        "median_umi_per_cell and context (default: the perturbations that the run held out).",
    )
    like: Path | None = option(
        None,
        read=True,
        help="Copy perturbations, numbers of cells, batches and total counts from a real file.",
    )
    as_: Literal["residual", "mean", "counts"] = option(
        "residual",
        help="How cells are made: control cells shifted by the effect, the mean in every cell, or "
        "integer counts.",
    )
    cells: Path | None = option(None, help="The project's cells; --control-cells takes precedence.")
    control_cells: Path | None = option(
        None, read=True, help="Take the control cells from this file (default: the one trained on)."
    )
    output: Path = option(
        Path("prediction.h5ad"), made="whole", help="The file to write.", short="-o"
    )
    overwrite: bool = option(
        default=False, help="Replace the output, and what is written with it, where it exists."
    )
    n_cells: int | None = option(
        None,
        help="Cells of each perturbation (default: as many as measured, else the median of those).",
        minimum=1,
    )
    controls: int | None = option(
        None, help="Control cells to add to the output (default: all; 0: none).", minimum=0
    )
    context: str | None = option(
        None, help="Predict in this context (cell type) only (default: all of the run)."
    )
    model: str | None = option(
        None, help="Another model on the same run, such as `mean` (default: the one trained)."
    )
    unknown: Literal["error", "mean"] = option(
        "error",
        help="For a target without features: stop with an error, or predict the mean "
        "effect and say so.",
    )
    calibrate: bool = option(
        default=True,
        help="Strengthen or weaken effects so that as many genes change significantly as in "
        "measured perturbations.",
    )
    for_: Literal["overall", "des", "pds", "mae"] = option(
        "overall",
        help="The score to scale effects for: des changes as many genes as expected, overall does "
        "so unless the error of the mean loses more than des gains, pds tells perturbations apart, "
        "and mae minimises the error of the mean.",
    )
    explain: Path | None = option(
        None,
        made="whole",
        help="Folder for tables and a page on what the predictions are based on.",
    )
    evaluate: Path | None = option(
        None, read=True, help="Score the prediction against these real cells."
    )
    run_cell_eval: bool = option(
        default=False, help="With --evaluate: show cell-eval's own scores too, if it is installed."
    )
    pack: Path | None = option(None, made="whole", help="Pack the prediction into this .vcc file.")
    rules: Literal["vcc2025", "vcc2026"] | None = option(
        None, help="Challenge rules for --evaluate and --pack (default: their own settings)."
    )
    runs: Path = option(Path("runs"), help="Folder of the run directories.")
    seed: int = option(0, help="Seed of the choice of control cells.", minimum=0)

    def __post_init__(self) -> None:
        if self.like is not None and self.perturbations:
            raise ValueError("like and perturbations both say what to predict; give one of them")

    @property
    def mode(self) -> Literal["residual", "mean", "counts"]:
        """How cells are generated."""
        return self._word or self.as_

    @property
    def companions(self) -> tuple[Path, Path]:
        """The table and the page written with the output."""
        stem = self.output.stem
        lines = self.output.with_name(f"{stem}.uncertainty.csv")
        return lines, self.output.with_name(f"{stem}.html")

    @property
    def control_file(self) -> Path | None:
        """The file of control cells, if given."""
        return self.control_cells or (None if self._word else self.cells)

    @property
    def _word(self) -> Literal["residual", "mean", "counts"] | None:
        """The value of --cells if it is a value of --as, as in older project files."""
        return next((mode for mode in MODES if self.cells == Path(mode)), None)


@click.command("predict")
@click.argument("run", nargs=-1)
@configured(
    Predict,
    first=(
        "perturbations",
        "output",
        "overwrite",
        "model",
        "as_",
        "control_cells",
        "n_cells",
        "calibrate",
        "explain",
        "evaluate",
        "pack",
    ),
)
def command(run: tuple[str, ...], config: Predict) -> None:
    r"""Predict the cells of unmeasured perturbations, from one or more trained RUNs.

    Several runs are averaged. Cells are real control cells shifted by the predicted effect, so they
    vary like real cells. They are log1p values on the scale of the training, or counts.

    \b
    Examples:
      vcell predict latest -o prediction.h5ad
      vcell predict latest --perturbations TP53,MYC --n-cells 400 -o two.h5ad
      vcell predict latest --like real.h5ad --as counts --evaluate real.h5ad
    """
    from vcell_predict.work import predict

    predict(run or ("latest",), config)


plugin = Plugin(
    name="predict",
    summary="Predict cells of unseen perturbations.",
    command=command,
    config=Predict,
    needs=("torch", "anndata", "scipy"),
)
