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
        The obs column that names perturbations, the controls' label, where values are; found if
        not given (values: ``X``), and said.
    context_column
        Score each value of this obs column, and average.
    only_shared
        Score perturbations and genes that both sides have; else a difference is an error.
    baseline, ceiling
        Score the baseline too, and scale by it; score half of the real cells against the other
        half (None: only where the rules need it).
    ties
        PDS under exact ties: "midrank", or "peer" for numpy's order.
    tables
        Whether the tables of differential expression are kept.
    threads, cache
        How many (None: one per core); where baselines and ceilings are kept.
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
