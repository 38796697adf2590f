"""`vcell train-vcc`: learn the response to perturbations, to predict those never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import DataOptions, configured, option
from vcell.launch import LaunchOptions
from vcell.plugin import Plugin
from vcell.train import TrainOptions
from vcell_train_vcc.network_options import NetworkOptions


@dataclass(frozen=True, kw_only=True)
class TrainVcc(DataOptions, NetworkOptions, TrainOptions, LaunchOptions):
    """The [train-vcc] table."""

    model: str = option(
        "bilinear", help="What to train: mean, ridge, bilinear, or an installed vcell.models name."
    )
    genes: Path | None = option(
        None, help="CSV of the genes whose expression makes the features (select-genes writes it)."
    )
    features: tuple[Path, ...] = option(
        (), help="Gene feature tables, .npz with `genes` and `features`, beside the expression."
    )
    held_out: Path | None = option(
        None, help="File naming the perturbations to hold out: one a line, or a target_gene column."
    )
    test_share: float = option(
        0.2, help="Share of perturbations to hold out, unless named.", minimum=0, maximum=0.9
    )
    validation_share: float = option(
        0.15, help="Share of the rest that chooses the model.", minimum=0.01, maximum=0.9
    )
    min_cells: int = option(10, help="Fewest cells a perturbation must have.", minimum=2)
    target_sum: float | None = option(
        None,
        help="Total that counts are scaled to before log1p (default: the controls' median).",
        minimum=1,
    )
    components: int = option(16, help="Components of each expression loading.", minimum=1)
    rank: int = option(16, help="Directions in which effects can differ.", minimum=1)
    hidden: int = option(64, help="Width of the residual network.", minimum=1)
    dropout: float = option(0.1, help="Dropout in the residual network.", minimum=0, maximum=0.9)
    batch_size: int = option(64, help="Perturbations per step, over all devices.", minimum=1)
    max_steps: int = option(600, help="How many steps to train.", minimum=1)
    lr: float = option(3e-3, help="Peak learning rate.", minimum=0)
    weight_decay: float = option(10.0, help="AdamW's decay of weight matrices.", minimum=0)
    validate_every: int = option(
        25, help="Steps between validations; 0 validates only at the end.", minimum=0
    )
    checkpoint_every: int = option(
        100, help="Steps between checkpoints; 0 writes only the last.", minimum=0
    )
    patience: int = option(
        8, help="Stop after so many validations without a better one; 0 never does.", minimum=0
    )
    runs: Path = option(Path("runs"), help="Folder in which the run directory is made.")
    resume: str | None = option(None, help="Go on with this run: its name, its path or `latest`.")


@click.command("train-vcc")
@click.argument("screen", required=False, type=click.Path(path_type=Path))
@configured(TrainVcc)
def command(screen: Path | None, config: TrainVcc) -> None:
    r"""Train a model of perturbation responses, and score it on perturbations it never saw.

    \b
    Example: vcell train-vcc cells.h5ad --genes genes/selected_genes.csv
             vcell train-vcc --resume latest
    """
    from vcell_train_vcc.work import run

    run(screen, config)


plugin = Plugin(
    name="train-vcc",
    summary="Train a model of perturbation responses.",
    command=command,
    config=TrainVcc,
    needs=("torch", "scipy", "safetensors"),
)
