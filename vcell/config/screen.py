"""The settings of a perturbation model's training data. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vcell.config.fields import option
from vcell.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ScreenOptions:
    """Settings for commands that measure a screen."""

    heading = "Perturbations and features"

    genes: Path | None = option(
        None,
        read=True,
        help="CSV of the genes the model sees, most important first (select-genes writes it).",
    )
    features: tuple[Path, ...] = option(
        (),
        read=True,
        help="Gene feature tables (.npz, .parquet, .csv, .tsv, .h5ad), or folders of them, in "
        "addition to expression; vcell features makes some.",
    )
    shipped_features: bool = option(
        default=True, help="Use the features of human genes that come with vcell: GO and Reactome."
    )
    graph: tuple[Path, ...] = option(
        (),
        read=True,
        help="Graphs of genes: edge lists (STRING, BioGRID, GEARS, any two columns of names), .gz "
        "or not. They give features of targets and guide sparse attention and --graph-loss.",
    )
    graph_features: bool = option(
        default=True, help="Derive features of targets from random walks along each graph."
    )
    prior_effects: tuple[Path, ...] = option(
        (),
        read=True,
        help="Effects of other screens (vcell effects writes them), trusted as far as they agree "
        "with the training perturbations of this one.",
    )
    controls: Literal["halves", "shared"] = option(
        "halves",
        help="Compare held-out and learnt perturbations with separate halves of the controls, or "
        "(as papers do) with the same ones, whose noise then raises correlations.",
    )
    expression_features: bool = option(
        default=True, help="Derive features of targets from how genes vary in the training cells."
    )
    held_out: Path | None = option(
        None,
        read=True,
        help="File naming the perturbations to hold out: one a line, or a target_gene column.",
    )
    validation: Path | None = option(
        None, read=True, help="File naming the perturbations used to choose the model."
    )
    fold: str | None = option(
        None, help="Hold out one of several equal parts, such as 2/5 for the second of five."
    )
    hold_out_context: str | None = option(
        None, help="Hold out a whole context: a label of the cell type column."
    )
    test_share: float = option(
        0.2, help="Share of perturbations to hold out, unless named.", minimum=0, maximum=0.9
    )
    validation_share: float = option(
        0.15, help="Share of the rest used to choose the model.", minimum=0.01, maximum=0.9
    )
    min_cells: int = option(10, help="Minimum number of cells of a perturbation.", minimum=2)
    target_sum: float | None = option(
        None,
        help="Total that counts are scaled to before log1p (default: the controls' median).",
        minimum=1,
    )
    components: int = option(16, help="Components of each expression loading.", minimum=1)
    seed: int = option(0, help="Seed of every random choice.", minimum=0, maximum=2**32 - 1)

    def __post_init__(self) -> None:
        if self.fold is not None:
            parse_fold(self.fold)
        after = getattr(super(), "__post_init__", None)  # of other inherited options
        if after is not None:
            after()


def parse_fold(text: str) -> tuple[int, int]:
    """Read ``2/5``: the second of five."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
        raise UserError(f"--fold {text!r} is not K/N", hint="the second of five folds: --fold 2/5")
    return int(match[1]), int(match[2])
