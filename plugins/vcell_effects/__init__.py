"""`vcell effects`: the effect of every perturbation of a screen, with standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import CellsPath, ManyFiles, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class EffectsOptions(ManyFiles):
    """Settings of `vcell effects`, the [effects] table."""

    output: Path = option(
        Path("effects.parquet"), made="whole", short="-o", help="The file to write."
    )
    min_cells: int = option(10, help="Minimum number of cells of a perturbation.", minimum=2)
    target_sum: float | None = option(
        None,
        help="Total that counts are scaled to before log1p (default: the controls' median).",
        minimum=1,
    )
    overwrite: bool = option(default=False, help="Replace a file of the same name.")


@click.command("effects")
@click.argument("screen", required=False, type=CellsPath(path_type=Path))
@configured(EffectsOptions)
def command(screen: Path | None, config: EffectsOptions) -> None:
    r"""Measure every perturbation of a screen against matched controls, with standard errors.

    The file has a row for each perturbation and cell type. For a perturbation that was not measured
    in your screen, its effect in another screen is the most informative feature.

    \b
    Examples: vcell effects rpe1.h5ad -o rpe1.parquet
              vcell train-vcc k562.h5ad --prior-effects rpe1.parquet
              vcell features rpe1.parquet -o features
    """
    from vcell_effects.work import run

    run(screen, config)


plugin = Plugin(
    name="effects",
    summary="Measure the effect of every perturbation, with standard errors.",
    command=command,
    config=EffectsOptions,
    needs=("pyarrow", "scipy"),
)
