"""`vcell train-vcc`: learn responses to perturbations, to predict unseen perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vcell.config import ManyFiles, Ranges, configured, option
from vcell.config.screen import ScreenOptions
from vcell.launch import LaunchOptions
from vcell.plugin import Plugin
from vcell.train.options import NOT_SEARCHED, ManyOptions, TrainOptions
from vcell_train_vcc.network_options import NetworkOptions

_NOT_SEARCHED = (
    *NOT_SEARCHED,
    *(
        "hold_out_context",
        "test_share",
        "validation_share",
        "min_cells",
        "target_sum",
        "estimate",
        "gpu",
    ),
)


NETWORKS = ("transformer", "shared-encoder")  # the models that are trained in steps


@dataclass(frozen=True, kw_only=True)
class TrainVcc(ManyFiles, ScreenOptions, NetworkOptions, ManyOptions, TrainOptions, LaunchOptions):
    """Settings of `vcell train-vcc`, the [train-vcc] table."""

    model: str = option(
        "transformer",
        help="What to train: transformer, shared-encoder, gp, ridge, knn, additive, context-mean, "
        "perturbed-mean, mean, or another installed vcell.models name.",
    )
    dropout: float = option(0.1, help="Dropout in the network.", minimum=0, maximum=0.9)
    # chosen on held-out perturbations of the simulator, seeds 1 to 3
    batch_size: int = option(16, help="Sets of cells per step, over all devices.", minimum=1)
    max_steps: int = option(150, help="How many steps to train.", minimum=1)
    lr: float = option(1e-3, help="Peak learning rate.", minimum=0)
    weight_decay: float = option(0.05, help="AdamW's decay of weight matrices.", minimum=0)
    ema: float = option(
        0.97, help="Decay of averaged weights; 0: no averaging.", minimum=0, maximum=0.999999
    )
    validate_every: int = option(
        10, help="Steps between validations; 0 validates only at the end.", minimum=0
    )
    checkpoint_every: int = option(
        50, help="Steps between checkpoints; 0 writes only the last.", minimum=0
    )
    sweep_over: Ranges | None = option(
        None,
        help="What to search, preferably as the table [train-vcc.sweep-over] of the project file: "
        'lr = {low = 1e-4, high = 1e-2, log = true}, preset = ["tiny", "small"].',
        apart=_NOT_SEARCHED,
    )

    @staticmethod
    def earlier(saved: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the settings of an older run, in which `graph` was a single path."""
        graph = saved.get("graph")
        return {**saved, "graph": [graph] if isinstance(graph, str) else graph}


FIRST = (  # the settings that --help shows
    *("model", "genes", "features", "held_out", "folds"),
    *("sweep", "gpus", "preset", "max_steps", "resume"),
)


@click.command("train-vcc")
@click.argument("screen", required=False, type=click.Path(path_type=Path))
@configured(TrainVcc, first=FIRST)
def command(screen: Path | None, config: TrainVcc) -> None:
    r"""Train a model of perturbation responses, and score it on unseen perturbations.

    \b
    Example: vcell train-vcc cells.h5ad --genes genes/selected_genes.csv
             vcell train-vcc cells.h5ad --features go.npz --folds 5
             vcell train-vcc cells.h5ad --sweep 20
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
