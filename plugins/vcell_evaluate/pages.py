"""The page of an evaluation: scores, bars per perturbation, PDS ranks, real against predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.report import Page, svg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from vcell.metrics.evaluation.scores import Metric, Scored

_MOST_BARS, _MOST_POINTS, _MOST_CLOUDS = 60, 4000, 6
HEADS = ("metric", "raw", "baseline", "ceiling", "scaled")


def page(
    title: str, metrics: Sequence[Metric], overall: float | None, found: list[Scored],
    facts: dict[str, Any],
) -> Page:  # fmt: skip
    """Lay out everything that was found."""
    made = Page("vcell evaluate", title)
    made.heading("Scores")
    if overall is not None:
        made.text(f"Overall: {overall:.4f}" + (" (mean over contexts)" if len(found) > 1 else ""))
    made.table(HEADS, [metric.row() for metric in metrics])
    for one in found:
        _context(made, one, several=len(found) > 1)
    made.heading("How this was computed")
    made.facts(flat(facts))
    return made


def _context(made: Page, one: Scored, *, several: bool) -> None:
    if several:
        made.heading(f"Context {one.context}")
        made.table(HEADS, [metric.row() for metric in one.metrics])
    made.heading("Per perturbation")
    for metric in one.metrics:
        column = one.per_perturbation.get(metric.name)
        if column is not None:
            _bars(made, one, metric, column)
    if one.distances is not None and len(one.perturbations) > 1:
        ranked = ranks(one.distances).tolist()
        made.figure(
            "Which real effect is nearest",
            svg.heat_map(
                ranked,
                rows="predicted effect",
                columns="real effect",
                legend="rank",
            ),
            "Row by row, the rank of every real effect by its distance to the predicted one; a "
            "perfect prediction has a dark diagonal.",
        )
    if one.effects is not None:
        _effects(made, one)
    if one.tables:
        _volcanoes(made, one)


def _bars(made: Page, one: Scored, metric: Metric, column: NDArray[np.float64]) -> None:
    order = np.argsort(-np.nan_to_num(column, nan=-np.inf), kind="stable")
    shown = order[:_MOST_BARS]
    values = {one.perturbations[i]: float(column[i]) for i in shown}
    left_out = len(order) - len(shown)
    made.figure(
        metric.name,
        svg.bars(values, reference=metric.baseline),
        "The dashed line is the baseline's mean." * (metric.baseline is not None)
        + f" {left_out} more are in results.csv." * (left_out > 0),
    )


def ranks(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank each row's distances, ties sharing their mean rank; 0 is the nearest."""
    from scipy.stats import rankdata

    ranked: NDArray[np.float64] = rankdata(distances, method="average", axis=1) - 1
    return ranked


def _effects(made: Page, one: Scored) -> None:
    """Draw real against predicted change of expression for the strongest perturbations."""
    real, pred = one.effects or (np.zeros((0, 0)), np.zeros((0, 0)))
    strongest = np.argsort(-np.abs(real).sum(axis=1), kind="stable")[:_MOST_CLOUDS]
    for i in strongest:
        some = np.argsort(-np.abs(real[i]) - np.abs(pred[i]), kind="stable")[:_MOST_POINTS]
        made.figure(
            f"{one.perturbations[i]}: change of expression",
            svg.scatter(
                {"genes": (real[i, some].tolist(), pred[i, some].tolist())},
                x="real", y="predicted", diagonal=True,
            ),
        )  # fmt: skip


def _volcanoes(made: Page, one: Scored) -> None:
    """Draw both sides' fold changes and FDR for the perturbations with most real calls."""
    tables = {"real": one.tables["real_de"], "predicted": one.tables["pred_de"]}
    calls = tables["real"].loc[tables["real"]["fdr"] < 0.05, "target"].value_counts()
    for name in calls.index[:3]:
        clouds = {}
        for side, table in tables.items():
            rows = table[(table["target"] == name) & np.isfinite(table["log2_fold_change"])]
            rows = rows.nsmallest(_MOST_POINTS // 2, "p_value")
            height = -np.log10(np.maximum(rows["fdr"].to_numpy(), 1e-300))
            clouds[side] = (rows["log2_fold_change"].tolist(), height.tolist())
        made.figure(
            f"{name}: significance of the change",
            svg.scatter(clouds, x="log2 fold change", y="-log10 FDR"),
        )


def flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested facts into one level of names and values."""
    lines: dict[str, Any] = {}
    for name, value in facts.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            lines |= flat(value, f"{label}: ")
        elif isinstance(value, list | tuple):
            lines[label] = "; ".join(map(str, value)) or None
        else:
            lines[label] = value
    return lines
