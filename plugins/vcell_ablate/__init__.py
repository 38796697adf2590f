"""`vcell ablate`: measure the contribution of each part of a run of train-bulk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Ablate:
    """Settings of `vcell ablate`, the [ablate] table."""

    runs: Path = option(Path("runs"), help="The folder of run directories.")


@click.command("ablate")
@click.argument("run", default="latest")
@configured(Ablate)
def command(run: str, config: Ablate) -> None:
    r"""Leave out each modality, each term of the loss and each component, one at a time.

    All variants use the same patients and folds, so the differences are paired. Prints one table
    with intervals, and writes ablation.csv and ablation.json into the run. If it is killed, at most
    one fold of one variant is lost.

    \b
    Example: vcell ablate latest
    """
    from vcell_ablate.work import ablate

    ablate(run, config)


plugin = Plugin(
    name="ablate",
    summary="Measure what each part of a run of train-bulk contributes.",
    command=command,
    config=Ablate,
    needs=("torch", "scipy"),
)
