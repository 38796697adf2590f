"""`vcell pack`: write and check submissions of the Virtual Cell Challenge, 2025 and 2026."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import ManyFiles, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Pack(ManyFiles):
    """Settings of `vcell pack`, the [pack] table."""

    rules: Literal["vcc2025", "vcc2026"] = option(
        "vcc2025",
        help="Submission format: log1p with controls (vcc2025), or counts per context (vcc2026).",
    )
    genes: Path | None = option(
        None,
        read=True,
        help="The challenge's gene_names.csv: every name and their order are checked.",
    )
    perturbations: Path | None = option(
        None,
        read=True,
        help="The challenge's pert_counts CSV: names (and cell numbers) are checked.",
    )
    context_column: str = option("context", help="The obs column that names each cell's context.")
    contexts: tuple[str, ...] = option(
        ("A", "B", "C"), help="vcc2026: contexts that must be present and complete."
    )
    cells_per_perturbation: int = option(
        400, help="vcc2026: cells that each perturbation must have in each context.", minimum=1
    )
    max_cells: int | None = option(
        None, help="Maximum number of cells (default: 200,000 in 2025, 400,000 in 2026).", minimum=1
    )
    check: bool = option(
        default=False, help="Only check a .vcc file, or a prediction that is not packed yet."
    )
    output: Path | None = option(None, made="whole", short="-o", help="The .vcc file to write.")
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")


@click.command("pack")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@configured(Pack)
def command(files: tuple[Path, ...], config: Pack) -> None:
    r"""Pack a prediction into a .vcc file for the Virtual Cell Challenge, or check one.

    FILES are the prediction (h5ad or zarr; several are joined, one per context for instance).
    What the challenge's server would refuse is refused here, before anything is uploaded. Memory
    does not grow with the number of cells, and the archive is read back after writing.

    \b
    Examples:
      vcell pack pred.h5ad -o pred.vcc --genes gene_names.csv
      vcell pack A.h5ad B.h5ad C.h5ad -o pred.vcc --rules vcc2026 --genes gene_names.csv \
          --perturbations pert_counts.csv
      vcell pack --check pred.vcc
    """
    from vcell_pack.work import run

    run(files, config)


plugin = Plugin(
    name="pack",
    summary="Pack a prediction for the Virtual Cell Challenge, or check a packed one.",
    command=command,
    config=Pack,
    needs=("anndata", "zstandard"),
)
