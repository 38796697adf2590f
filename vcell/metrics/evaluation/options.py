"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Rules = Literal["vcc2025", "vcc2025-official", "vcc2026", "full"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to score; `vcell evaluate`'s settings have the same names.

    Attributes
    ----------
    rules
        "vcc2025" as cell-eval 0.8 computes it, "vcc2025-official" as the leaderboard of 2025 did,
        "vcc2026" as cell-eval2 does, or "full": every metric of cell-eval.
    perturbation_column, control, layer
        Obs column of the perturbations, label of the controls, and layer of the values; detected if
        not given (values: ``X``), and reported.
    context_column
        Score the cells of each value of this obs column separately, and average.
    only_shared
        Score only perturbations and genes that both sides have; otherwise a difference is an error.
    baseline, ceiling
        Score the baseline too, and scale by it; score half of the real cells against the other half
        (None: only if the rules need it).
    ties
        PDS under exact ties: "midrank", or "peer" for numpy's order.
    tables
        Whether to return the tables of differential expression.
    threads, cache
        Number of threads (None: one per core); folder in which baselines and ceilings are cached.
    """

    rules: Rules = "vcc2025"
    perturbation_column: str | None = None
    control: str | None = None
    batch_column: str | None = None
    cell_type_column: str | None = None
    layer: str | None = None
    context_column: str | None = None
    only_shared: bool = False
    baseline: bool = True
    ceiling: bool | None = None
    ties: Literal["midrank", "peer"] = "midrank"
    tables: bool = False
    threads: int | None = None
    cache: Path | None = None
