"""`score`: two sides in, the challenge's scores out.

from vcell.metrics import score
found = score(pred, real)      # AnnData or paths
found.overall, found.metrics   # a number, a frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.metrics.evaluation.options import Options, Rules
from vcell.metrics.evaluation.pairs import open_pairs
from vcell.metrics.evaluation.scores import Scored, average

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd  # noqa: TC004 - a dataclass only names it
    from anndata import AnnData


@dataclass(frozen=True)
class Score:
    """The result of an evaluation.

    Attributes
    ----------
    overall
        The challenge's score, averaged over contexts; None if no metric could be scaled.
    metrics
        One row per metric: raw, baseline, ceiling, scaled.
    per_perturbation
        One row per perturbation (and context), one column per metric.
    contexts
        All results of each context; `facts` lists what was detected.
    """

    overall: float | None
    metrics: pd.DataFrame
    per_perturbation: pd.DataFrame
    contexts: tuple[Scored, ...]


def contexts(
    prediction: AnnData | str | Path, real: AnnData | str | Path, options: Options
) -> list[Scored]:
    """Score every context."""
    found = []
    for pair in open_pairs(prediction, real, options):  # errors in the files come first
        if options.rules == "vcc2026":
            from vcell.metrics.evaluation.rules2026 import score as of
        else:
            from vcell.metrics.evaluation.rules2025 import score as of
        found.append(of(pair, options))
    return found


def score(
    prediction: AnnData | str | Path,
    real: AnnData | str | Path,
    rules: Rules = "vcc2025",
    **options: Any,
) -> Score:
    """Score a prediction against the real cells by the rules of the Virtual Cell Challenge.

    Counts and log1p values are detected, genes and perturbations aligned by name, and a prediction
    without control cells uses the real ones; each is reported.

    Parameters
    ----------
    prediction, real
        AnnData, or paths to h5ad or zarr, or to folders with one file per context.
    rules
        "vcc2025", "vcc2025-official", "vcc2026" or "full".
    **options
        The other attributes of `vcell.metrics.evaluation.options.Options`:
        ``perturbation_column``, ``control``, ``layer``, ``context_column``, ``only_shared``,
        ``baseline``, ``ceiling``, ``ties``, ``tables``, ``threads``, ``cache``.

    Returns
    -------
    Score

    Raises
    ------
    UserError
        If the sides cannot be compared; the message says why, and the hint what to do.

    Examples
    --------
    >>> from vcell.metrics import score
    >>> found = score(predicted, measured, only_shared=True)
    >>> found.metrics.loc["mae", "scaled"]  # doctest: +SKIP
    """
    import pandas as pd

    found = contexts(prediction, real, Options(rules=rules, **options))
    metrics, overall = average(found)
    columns = ("metric", "raw", "baseline", "ceiling", "scaled")
    frames = []
    for one in found:
        frame = pd.DataFrame(one.per_perturbation)
        frame.insert(0, "perturbation", list(one.perturbations))
        if len(found) > 1:
            frame.insert(0, "context", str(one.context))
        frames.append(frame)
    return Score(
        None if overall is None or np.isnan(overall) else overall,
        pd.DataFrame([m.row() for m in metrics], columns=columns).set_index("metric"),
        pd.concat(frames, ignore_index=True),
        tuple(found),
    )
