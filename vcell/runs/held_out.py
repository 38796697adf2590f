"""Scores of a run's model on held-out data, by names that people know. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcell.runs.run import Run

SCORES = {
    "gain": "gain (share of the way from the mean to perfect)",
    "pds": "PDS (discrimination; 1 is best)",
    "mae": "MAE (0 is best)",
    "delta_correlation": "correlation of the changes (1 is best)",
    "auc": "AUC (1 is best)",
    "accuracy": "accuracy (1 is best)",
    "macro_f1": "macro-F1 (1 is best)",
    "ece": "calibration error (0 is best)",
    "r": "correlation r (1 is best)",
    "explained": "share of the variance explained (1 is best)",
}


def held_out(run: Run) -> dict[str, Any]:
    """Return the scores of the run's model on what was held out, by their full names."""
    every = (run.meta.get("summary") or {}).get("held_out")
    model = run.meta.get("model") or run.meta.get("command")
    scores = every.get(model) if isinstance(every, dict) and isinstance(model, str) else None
    if not isinstance(scores, dict):
        return {}
    named = {words: scores[key] for key, words in SCORES.items() if key in scores}
    return {"model": model} | named if named else {}


def beside(runs: list[Run]) -> list[tuple[Any, ...]]:
    """Return a line for each score that any of the runs has: its name, and that of every run."""
    found = [held_out(run) for run in runs]
    names = dict.fromkeys(name for scores in found for name in scores)
    return [(name, *(scores.get(name) for scores in found)) for name in names]
