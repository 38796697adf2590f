"""The settings of the networks, transformer and shared-encoder. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vcell.config import option


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Settings of the networks, inherited by TrainVcc."""

    heading = "Network"

    preset: Literal["auto", "tiny", "small", "base", "large"] = option(
        "auto", help="Size of the network; auto is base on a GPU and tiny on a CPU."
    )
    tokens: int | None = option(
        None,
        help="How many genes the network sees (default: 5000 on a GPU, 384 on a CPU).",
        minimum=8,
    )
    attention: Literal["auto", "flash", "sdpa", "chunked", "sparse", "linear", "local"] = option(
        "auto", help="Attention implementation; sparse follows --graph, or co-expression."
    )
    strategy: Literal["standard", "progressive"] = option(
        "standard", help="All genes from the start, or four phases with more and more genes."
    )
    phase_genes: tuple[int, ...] = option(
        (), help="Genes of each phase (default: 500, 1200, 2500, 5000, or scaled to fewer genes)."
    )
    set_size: int = option(32, help="Cells per set, and matched controls per set.", minimum=1)
    pseudo: int = option(
        1, help="Pseudo-cells that the controls of a set are pooled into.", minimum=1
    )
    max_cells: int | None = option(
        None, help="Train on at most this many perturbed cells, drawn at random.", minimum=1
    )
    loss: Literal["combined", "adaptive"] = option(
        "combined",
        help="Weights apply to the losses, or to their gradients at the network's trunk.",
        table="losses",
    )
    alpha: float = option(1.0, help="Weight of the reconstruction loss.", minimum=0, table="losses")
    beta: float = option(0.5, help="Weight of the classification loss.", minimum=0, table="losses")
    delta_loss: float = option(
        1.0,
        help="Weight of the absolute error of the effect against matched controls.",
        minimum=0,
        table="losses",
    )
    set_loss: Literal["none", "energy", "mmd"] = option(
        "none", help="Compare predicted with real cells of a set, by this distance.", table="losses"
    )
    set_weight: float = option(1.0, help="Weight of the set loss.", minimum=0, table="losses")
    pds_loss: float = option(
        0.1,
        help="Weight of a smooth stand-in for the discrimination score.",
        minimum=0,
        table="losses",
    )
    graph_loss: float = option(
        0.0,
        help="Weight of the divergence of attention from each graph's rows; it needs --graph.",
        minimum=0,
        table="losses",
    )
    gpu: str | None = option(
        None,
        help="With --estimate: a GPU that need not be present, such as h100, by its published "
        "rates; --gpus gives the number.",
    )
    estimate: bool = option(
        default=False, help="Estimate the cost of training on this device, and exit."
    )
