"""`vcell train-bulk`: predict outcomes from bulk expression, learning from single cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import DataOptions, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class TrainBulk(DataOptions):
    """Settings of `vcell train-bulk`, the [train-bulk] table."""

    patient_column: str = option("patient", help="The obs column that names each cell's patient.")
    outcome_column: str = option(
        "outcome", help="The obs column with the patient's outcome: two values or more."
    )
    gmvae: str | None = option(
        None, help="A finished run of train-gmvae: cell-type states are its latent means."
    )
    pairs: Path | None = option(
        None,
        read=True,
        help="A CSV or TSV of ligands and receptors; without it, communication is not used.",
    )
    pseudobulk: Path | None = option(
        None,
        read=True,
        help="More training samples of the same patients: an .npz of vcell pseudobulk --by.",
    )
    folds_file: Path | None = option(
        None,
        read=True,
        help="File of patient folds, each with a run of train-gmvae, as vcell pipeline writes it.",
    )
    folds: int = option(5, help="Outer folds of patients, each tested once.", minimum=2)
    inner_folds: int = option(
        3, help="Folds of the training patients used to choose settings.", minimum=2
    )
    genes: int = option(2000, help="Genes used: those that vary most in training.", minimum=2)
    axes: tuple[int, ...] = option(
        (5, 20), help="Numbers of principal axes to choose from.", minimum=1
    )
    steps: tuple[int, ...] = option(
        (50, 100, 200), help="Numbers of training steps to choose from.", minimum=1
    )
    members: int = option(3, help="Networks of different seeds to average.", minimum=1)
    modalities: tuple[Literal["proportions", "states", "communication", "bulk"], ...] = option(
        ("proportions", "states", "communication", "bulk"),
        help="Modalities to predict through; bulk: what none of the others captures.",
    )
    fusion: Literal["uncertainty", "mean"] = option(
        "uncertainty", help="Weigh modalities by 1/variance, or equally."
    )
    teacher: float = option(
        0.5, help="Weight of the outcome predicted from the modalities.", minimum=0
    )
    reconstruction: float = option(
        0.5, help="Weight of predicting the other modalities from bulk.", minimum=0
    )
    kl: float = option(0.01, help="Weight of the latents' distance to N(0, 1).", minimum=0)
    contrast: float = option(
        0.1, help="Weight of InfoNCE between bulk and each modality.", minimum=0
    )
    min_cells: int = option(
        1,
        help="Cell types with fewer cells count as unlabelled; with 1, a type with one cell is "
        "an error.",
        minimum=1,
    )
    shuffle_outcomes: bool = option(
        default=False,
        help="Shuffle outcomes between patients, as a check: no AUC should stay above .5.",
    )
    seed: int = option(0, help="The seed of folds, weights and noise.", minimum=0)
    runs: Path = option(Path("runs"), help="The folder of run directories.")
    resume: str | None = option(None, help="Resume this run: a name, a path, or latest.")

    def __post_init__(self) -> None:
        for name in ("axes", "steps"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must ascend, each once")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities: name one at least, and none twice")


@click.command("train-bulk")
@click.argument("file", metavar="CELLS", required=False, type=click.Path(path_type=Path))
@configured(
    TrainBulk,
    first=(
        "cells", "patient_column", "outcome_column", "cell_type_column", "batch_column", "gmvae",
        "pairs", "pseudobulk", "folds", "seed", "runs", "resume",
    ),
)  # fmt: skip
def command(file: Path | None, config: TrainBulk) -> None:
    r"""Predict patients' outcomes from bulk expression, and score them on unseen patients.

    Only the training patients need single cells: their cell-type proportions, cell-type states and
    communication train a network that predicts from bulk alone. Cross-validation splits patients,
    and everything is learned from training patients only. The result is compared with logistic
    regression, and the verdict says when that wins.

    \b
    Example: vcell train-bulk cells.h5ad --patient-column donor --outcome-column response \
                 --cell-type-column cell_type --pairs pairs.csv
             vcell train-bulk cells.h5ad --shuffle-outcomes
             vcell train-bulk --resume latest
    """
    from vcell_train_bulk.work import run

    run(file, config)


plugin = Plugin(
    name="train-bulk",
    summary="Predict patients' outcomes from bulk, learning from single cells.",
    command=command,
    config=TrainBulk,
    needs=("torch", "scipy", "numba"),
)
