"""The model card of a run: the training data, and the scores on held-out perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.models.held_out import markdown
from vcell.models.registry import get
from vcell.screen.split import TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from vcell.runs import Run
    from vcell.screen import Screen

FILE = "model-card.md"
_LIMITS = (
    "Predicts changes of mean expression of perturbations like those it was trained on, in the "
    "contexts above. It does not cover other species, doses or times."
)


def card(run: Run, model: str, screen: Screen, summary: dict[str, Any]) -> str:
    """Return the card in Markdown; `summary` is that of `HeldOut`."""
    config, about = run.meta["config"], get(model).summary
    parts = {"train": TRAIN, "validation": VALIDATION, "held out": TEST}
    sizes = ", ".join(f"{(screen.part == part).sum()} {name}" for name, part in parts.items())
    counted = np.isfinite(screen.target_sum)
    scale = f"counts per {screen.target_sum:g}" if counted else "values as in the file"
    contexts, n_features = ", ".join(screen.contexts.tolist()), screen.features.shape[1]
    blocks, other = ", ".join(screen.block_columns()), ", ".join(screen.prior_sources.tolist())
    lines = [
        f"# {model}, run {run.name}",
        "",
        f"{about[0].upper()}{about[1:]}.",
        "",
        f"- Cells: `{config.get('cells')}`, {len(screen.genes):,} genes, contexts: {contexts}",
        f"- Perturbations: {sizes}",
        f"- Gene features: {n_features} of {len(screen.feature_genes):,} genes: {blocks or 'none'}",
        *([f"- Effects of other screens: {other}"] if other else []),
        f"- Scale: {'log1p of' if counted else 'log1p'} {scale}",
        f"- Seed: {config.get('seed')}",
        f"- {_LIMITS}",
        "",
        "## Held-out perturbations (pseudobulk)",
        "",
        *markdown(summary),
    ]
    return "\n".join(lines) + "\n"
