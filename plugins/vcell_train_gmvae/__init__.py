"""`vcell train-gmvae`: a Gaussian-mixture autoencoder of counts that labels and embeds cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import ManyFiles, configured, option
from vcell.config.data import NO_LABEL
from vcell.launch import LaunchOptions
from vcell.plugin import Plugin
from vcell.train.options import RunOptions, TrainOptions


@dataclass(frozen=True, kw_only=True)
class TrainGmvae(ManyFiles, RunOptions, TrainOptions, LaunchOptions):
    """Settings of `vcell train-gmvae`, the [train-gmvae] table."""

    labels: str | None = option(
        None, help="The obs column with labels (default: cell-type-column; without: unsupervised)."
    )
    label_fraction: float = option(
        1.0, help="Share of the training cells whose label the model sees.", minimum=0, maximum=1
    )
    unlabelled: tuple[str, ...] = option(
        NO_LABEL,
        help="Labels that mean 'unlabelled'. Such cells are learned from, and are never a class.",
    )
    min_cells: int = option(
        1,
        help="Labels with fewer cells count as none; with 1, a label of one cell is an error.",
        minimum=1,
    )
    keep_all_labels: bool = option(
        default=False,
        help="Show the model all labels; otherwise, labels that look wrong are withheld where 2 % "
        "or more do.",
    )
    likelihood: Literal["nb", "zinb", "poisson", "mse"] = option(
        "nb",
        help="Distribution of counts: negative binomial, zero-inflated, Poisson, or squared error.",
    )
    components: int | None = option(
        None, help="Components of the mixture (default: one per label, else 16).", minimum=1
    )
    preset: Literal["default", "original"] = option(
        "default", help="Widths: default, or those of the original (512-256-64-256-512)."
    )
    latent: int | None = option(None, help="Latent dimensions (default: by preset).", minimum=1)
    encoder: tuple[int, ...] = option((), help="Widths of the encoder (default: by preset).")
    decoder: tuple[int, ...] = option((), help="Widths of the decoder (default: by preset).")
    dropout: float | None = option(
        None,
        help="Dropout in the encoder (default: .3 with labels, else 0).",
        minimum=0,
        maximum=0.9,
    )
    label_weight: float = option(20.0, help="Weight of the labels' cross entropy.", minimum=0)
    kl_weight: float = option(1.0, help="Weight of the distance to the mixture.", minimum=0)
    kl_warmup: float = option(
        0.1, help="Share of the steps over which that weight rises.", minimum=0, maximum=1
    )
    free_bits: float = option(
        0.0, help="Nats of the distance to the mixture that cost nothing.", minimum=0
    )
    held_out_share: float = option(
        0.2, help="Share of each label's cells to hold out and score.", minimum=0.01, maximum=0.9
    )
    epochs: str = option("auto", help="How many epochs; auto: ten, and at least 2,000 steps.")
    max_steps: int = option(0, help="How many steps to train; 0: by --epochs.", minimum=0)
    batch_size: int = option(128, help="Cells per step, over all devices.", minimum=1)
    lr: float = option(1e-3, help="Peak learning rate.", minimum=0)
    warmup: float = option(
        0.05, help="Share of the steps over which the learning rate rises.", minimum=0, maximum=1
    )
    weight_decay: float = option(1e-4, help="AdamW's decay of weight matrices.", minimum=0)
    clip_norm: float = option(
        1000.0, help="Largest gradient norm, in nats per cell; 0 never clips.", minimum=0
    )
    validate_every: int = option(
        0, help="Steps between validations; 0: once an epoch, at most every 50 steps.", minimum=0
    )
    checkpoint_every: int = option(
        500, help="Steps between checkpoints; 0 writes only the best and the last.", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs != "auto" and not (self.epochs.isdecimal() and int(self.epochs) > 0):
            raise ValueError(f"epochs must be 1, 2, ... or auto, not {self.epochs!r}")
        if any(width < 1 for width in (*self.encoder, *self.decoder)):
            raise ValueError("widths of layers are at least 1")


@click.command("train-gmvae")
@click.argument("file", metavar="CELLS", required=False, type=click.Path(path_type=Path))
@configured(
    TrainGmvae,
    first=(
        "labels",
        "label_fraction",
        "likelihood",
        "components",
        "preset",
        "epochs",
        "held_out_share",
        "layer",
        "gpus",
        "seed",
        "resume",
    ),
)
def command(file: Path | None, config: TrainGmvae) -> None:
    r"""Train a Gaussian-mixture autoencoder of counts, and score it on cells it never saw.

    Labels are optional, and may be known for some cells only. `vcell embed` uses the run.

    \b
    Example: vcell train-gmvae cells.h5ad --labels cell_type
             vcell train-gmvae cells.h5ad --labels cell_type --label-fraction 0.1
             vcell train-gmvae cells.h5ad --components 12 --likelihood zinb
             vcell train-gmvae --resume latest
    """
    from vcell_train_gmvae.work import run

    run(file, config)


plugin = Plugin(
    name="train-gmvae",
    summary="Train a mixture autoencoder that labels and embeds cells.",
    command=command,
    config=TrainGmvae,
    needs=("torch", "scipy", "numba", "safetensors"),
)
