"""`vcell evaluate`: the Virtual Cell Challenge's scores of a prediction, for both rule years."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import CellsPath, ColumnOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Evaluate(ColumnOptions):
    """Settings of `vcell evaluate`, the [evaluate] table."""

    rules: Literal["vcc2025", "vcc2025-official", "vcc2026", "full"] = option(
        "vcc2025",
        help="Rules to score by: 2025 as cell-eval computes them now, 2025 as the leaderboard did "
        "(FDR over all tests, fold changes clipped at 20), 2026, or every metric.",
    )
    output: Path | None = option(
        None, made="whole", short="-o", help="Folder for tables, DE results and a page."
    )
    overwrite: bool = option(default=False, help="Replace the output folder where it exists.")
    context_column: str | None = option(
        None, help="Score each context (cell line) of this obs column, and average."
    )
    only_shared: bool = option(
        default=False, help="Score only perturbations and genes found in both files; list the rest."
    )
    baseline: bool = option(
        default=True, help="Score the cell-mean baseline too, and scale by it (kept in the cache)."
    )
    ceiling: bool | None = option(
        None, help="Score one half of the real cells against the other (default: in vcc2026 only)."
    )
    ties: Literal["midrank", "peer"] = option(
        "midrank",
        help="How PDS ranks exact ties: by the mean rank, or in numpy's order as cell-eval does.",
    )
    threads: int | None = option(None, help="Threads (default: one per core).", minimum=1)
    cache: Path | None = option(
        None, made="into", help="Where baselines and ceilings are kept (default: ~/.cache/vcell)."
    )


@click.command("evaluate")
@click.argument("prediction", type=CellsPath(path_type=Path))
@click.argument("real", type=CellsPath(path_type=Path))
@configured(Evaluate)
def command(prediction: Path, real: Path, config: Evaluate) -> None:
    r"""Score a PREDICTION against the REAL cells by the rules of the Virtual Cell Challenge.

    Both are h5ad or zarr, counts or log1p (detected and printed), or folders that hold one file
    per context under the same name. A prediction without control cells borrows the real ones.

    \b
    Examples:
      vcell evaluate pred.h5ad real.h5ad -o scores
      vcell evaluate pred.h5ad real.h5ad --rules vcc2026 --json
    """
    from vcell_evaluate.work import run

    run(prediction, real, config)


plugin = Plugin(
    name="evaluate",
    summary="Score a prediction by the rules of the Virtual Cell Challenge.",
    command=command,
    config=Evaluate,
    needs=("anndata", "numba", "pandas", "pyarrow"),
)
