"""`vcell predict-bulk`: predict the outcomes of new patients from bulk expression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class PredictBulk:
    """Settings of `vcell predict-bulk`, the [predict-bulk] table."""

    output: Path | None = option(None, made="whole", short="-o", help="The .csv to write.")
    layer: str | None = option(
        None, help="The layer that holds the counts; 'raw' for raw/X (default: X)."
    )
    least_genes: float = option(
        0.5,
        help="Minimum share of the model's genes that BULK must contain.",
        minimum=0,
        maximum=1,
    )
    runs: Path = option(Path("runs"), help="Folder in which runs are looked up by name.")
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")


@click.command("predict-bulk")
@click.argument("run", metavar="RUN")
@click.argument("bulk", metavar="BULK", type=click.Path(path_type=Path))
@configured(PredictBulk)
def command(run: str, bulk: Path, config: PredictBulk) -> None:
    r"""Predict the outcomes of new patients from bulk expression, with a run of train-bulk.

    BULK is an .h5ad of samples, or a .csv or .tsv with samples in rows or in columns: counts or
    counts per million, not their logarithms. No single cells are needed. Genes are found by name or
    alias. The run's cross-validation tells how good such predictions are.

    \b
    Example: vcell predict-bulk latest new_bulk.csv -o outcomes.csv
             vcell predict-bulk latest new_bulk.h5ad --least-genes 0.8 -o outcomes.csv
    """
    from vcell_predict_bulk.work import predict

    predict(run, bulk, config)


plugin = Plugin(
    name="predict-bulk",
    summary="Predict the outcomes of new patients from bulk expression.",
    command=command,
    config=PredictBulk,
    needs=("torch", "scipy", "numba"),
)
