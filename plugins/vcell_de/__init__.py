"""`vcell de`: differential expression of every perturbation, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import CellsPath, ManyFiles, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class De(ManyFiles):
    """Settings of `vcell de`, the [de] table."""

    output: Path | None = option(
        None, made="whole", short="-o", help="The table to write: .parquet or .csv."
    )
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")
    layout: Literal["pdex", "scanpy"] = option(
        "pdex", help="Column names of pdex, or of scanpy's rank_genes_groups_df."
    )
    test: Literal["wilcoxon", "t-test"] = option(
        "wilcoxon", help="Rank-sum test (tie and continuity correction), or Welch's t-test."
    )
    against: Literal["control", "rest"] = option(
        "control", help="Compare each perturbation with the controls, or with all other cells."
    )
    values: Literal["log1p", "stored"] = option(
        "log1p", help="Test log1p of counts scaled to their median total, or values as stored."
    )
    fold_change: Literal["geometric", "clipped", "arithmetic"] = option(
        "geometric",
        help="Of expm1(mean(log1p)); the same clipped at 20; or of mean(expm1) with 1e-9 added.",
    )
    fdr: Literal["perturbation", "global"] = option(
        "perturbation", help="Adjust p-values within each perturbation, or over all tests."
    )
    min_cpm: float = option(
        0.0, help="Test only genes whose mean counts per million in the controls exceed this.",
        minimum=0,
    )  # fmt: skip
    stratify: str | None = option(
        None, help="Test separately within each value of this obs column (batch, cell type)."
    )
    threads: int | None = option(None, help="Threads (default: one per core).", minimum=1)


@click.command("de")
@click.argument("file", required=False, type=CellsPath(path_type=Path))
@configured(De)
def command(file: Path | None, config: De) -> None:
    r"""Test every gene of every perturbation in FILE for differential expression.

    FILE defaults to the project's cells. With --against rest no controls are needed: name a column
    of cell types or clusters with --perturbation-column to find marker genes.

    Cells are read in chunks, so memory does not grow with their number; every gene is sorted once,
    whatever the number of perturbations.

    \b
    Examples:
      vcell de cells.h5ad -o de.parquet
      vcell de cells.h5ad -o de.csv --layout scanpy --against rest --test t-test
    """
    from vcell_de.work import run

    run(file or config.cells, config)


plugin = Plugin(
    name="de",
    summary="Test every perturbation for differential expression.",
    command=command,
    config=De,
    needs=("anndata", "numba", "pandas", "pyarrow", "scipy"),
)
