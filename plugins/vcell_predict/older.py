"""Screens without contexts and noise, as they were first, in the shape that predict works with.

To be deleted together with the branch in `ensemble.Member.open` once no such screen is made.
"""

from __future__ import annotations

from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data import open_cells
from vcell.data.log_cells import COUNTS, LOG, LogCells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.models import Screen
    from vcell.runs import Run

_CONTROLS = 2000  # enough for a variance


def adapted(run: Run, screen: Screen, predictor: Any) -> tuple[Any, Any]:
    """Return the screen with one context, and the predictor asked without."""
    kept = ("genes", "perturbations", "part", "cells", "delta", "target_sum", "rows")
    new = SimpleNamespace(**{name: getattr(screen, name) for name in kept})
    new.contexts, new.context = np.array(["all"]), np.zeros(len(screen.part), np.int64)
    new.control, new.feature_genes = screen.control[None], screen.genes
    new.noise = _noise(run, screen)
    if "contexts" in signature(predictor.predict).parameters:
        return new, predictor

    def predict(names: Sequence[str], contexts: Sequence[str] | None = None) -> Any:
        return predictor.predict(names)

    return new, SimpleNamespace(predict=predict)


def _noise(run: Run, screen: Screen) -> Any:
    """Return the sampling variance of each effect, mean over genes, as that of controls."""
    labels = run.meta["labels"]
    first = second = np.zeros(len(screen.genes))
    kind = COUNTS if np.isfinite(screen.target_sum) else LOG
    with open_cells(run.meta["config"]["cells"]) as source:
        column = source.obs(labels["perturbation_column"])
        control = column.categories.tolist().index(labels["control"])
        rows = np.flatnonzero(column.codes == control)[:_CONTROLS]
        for _, block in LogCells(source, kind, screen.target_sum).blocks(rows):
            first = first + np.asarray(block.sum(axis=0)).ravel()
            second = second + np.asarray(block.power(2).sum(axis=0)).ravel()
    variance = (second / len(rows) - (first / len(rows)) ** 2).mean()
    return (variance * (1 / screen.cells + 1 / len(rows))).astype(np.float32)
