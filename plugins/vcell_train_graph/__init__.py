"""`vcell train-graph`: values of gene sets, such as trigenic interactions, with gene graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import Ranges, configured, option
from vcell.launch import LaunchOptions
from vcell.plugin import Plugin
from vcell.train.options import NOT_SEARCHED, ManyOptions, TrainOptions

_APART = (
    *NOT_SEARCHED, "table", "graph", "features", "control", "seeds", "draw", "wiring",
    "test_share", "validation_share", "estimate",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainGraph(ManyOptions, TrainOptions, LaunchOptions):
    """Settings of `vcell train-graph`, the [train-graph] table."""

    table: Path | None = option(
        None,
        read=True,
        help="Gene sets with one value each: Kuzmin's tables, columns gene_1 ... value, or a map "
        "of pairs.",
    )
    graph: tuple[Path, ...] = option(
        (), read=True, help="Edge lists of gene graphs, or a folder of graphs that vcell wrote."
    )
    features: tuple[Path, ...] = option(
        (), read=True, help="Tables of gene features, as train-vcc takes."
    )
    model: str = option(
        "transformer",
        help="What to train: transformer, dango, mlp, factors, graph-gp, gp, additive, "
        "query-mean, or another installed vcell.graph_models name.",
    )
    control: Literal["rewired", "shuffled-features"] | None = option(
        None,
        help="Also train with rewired graphs (every degree kept), or with the features of other "
        "genes. Only this shows whether the graph or the features helped.",
    )
    seeds: int = option(
        3,
        help="Draws of networks and of controls; with fewer than 3 there is no verdict.",
        minimum=1,
    )
    draw: int = option(0, help="The number of the draw that a single run trains.", minimum=0)
    wiring: Literal["given", "rewired", "shuffled-features"] = option(
        "given", help="Graphs and features that a single run uses; --control trains both."
    )
    fold: str | None = option(
        None, help="Train only one split: random, or 2/5 for the second of five by query pair."
    )
    folds: int | None = option(
        5, help="Folds by query pair in every run, in addition to a random split.", minimum=2
    )
    test_share: float = option(
        0.2, help="Share of the sets that the random split holds out.", minimum=0.01, maximum=0.9
    )
    validation_share: float = option(
        0.15, help="Share of the groups used to choose the model.", minimum=0.01, maximum=0.9
    )
    graph_loss: float = option(
        1e-3,
        help="Weight of the graph loss: the divergence of attention from each graph's rows, or for "
        "dango the error in predicting neighbours; 0 turns it off.",
        minimum=0,
    )
    graph_rows: float = option(
        1.0, help="Share of the rows that the graph loss draws.", minimum=0.001, maximum=1
    )
    width: int = option(64, help="Width of the network.", minimum=8)
    layers: int = option(2, help="Layers of the transformer.", minimum=1)
    heads: int = option(
        4, help="Attention heads; the graph loss assigns one to each graph.", minimum=1
    )
    tokens: int | None = option(
        None, help="Most genes that the transformer encodes: those of the table, then by degree.",
        minimum=2,
    )  # fmt: skip
    dropout: float = option(0.1, help="Dropout in the network.", minimum=0, maximum=0.9)
    batch_size: int = option(1024, help="Sets per step, over all devices.", minimum=1)
    max_steps: int = option(300, help="How many steps to train.", minimum=1)
    lr: float = option(1e-3, help="Peak learning rate.", minimum=0)
    weight_decay: float = option(0.05, help="AdamW's decay of weight matrices.", minimum=0)
    ema: float = option(
        0.97, help="Decay of averaged weights; 0: no averaging.", minimum=0, maximum=0.999999
    )
    validate_every: int = option(
        20, help="Steps between validations; 0 validates only at the end.", minimum=0
    )
    patience: int = option(
        5, help="Stop after this many validations without improvement; 0: never.", minimum=0
    )
    sweep_over: Ranges | None = option(
        None,
        help="What to search, preferably as the table [train-graph.sweep-over] of the project "
        "file.",
        apart=_APART,
    )
    estimate: bool = option(
        default=False, help="Estimate the cost of a step on this device, and exit."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")


FIRST = (
    *("graph", "features", "model", "control", "seeds", "folds", "graph_loss", "max_steps"),
    *("resume", "estimate"),
)


@click.command("train-graph")
@click.argument("sets", metavar="TABLE", required=False, type=click.Path(path_type=Path))
@configured(TrainGraph, first=FIRST)
def command(sets: Path | None, config: TrainGraph) -> None:
    r"""Learn values of gene sets, and test whether gene graphs help.

    Every run tests on query pairs held out in five folds, and on random sets held out in one more
    split. It compares the model with an additive model and the mean of the query pair.

    \b
    Example: vcell train-graph tau.tsv --graph string.tsv --graph ppi.tsv
             vcell train-graph tau.tsv --graph string.tsv --model graph-gp --control rewired
             vcell train-graph --resume latest
    """
    from vcell_train_graph.work import run

    run(sets, config)


plugin = Plugin(
    name="train-graph",
    summary="Learn the values of gene sets with gene graphs.",
    command=command,
    config=TrainGraph,
    needs=("torch", "scipy", "safetensors"),
)
