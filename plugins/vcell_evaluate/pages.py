"""The page of an evaluation: scores, bars per perturbation, PDS ranks, real against predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.metrics.names import called
from vcell.metrics.rankings import mean_ranks
from vcell.report import Page, svg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from vcell.metrics.evaluation.scores import Metric, Scored

_MOST_BARS, _WORST, _MOST_POINTS, _MOST_CLOUDS = 60, 20, 4000, 6
_NAMED = 30  # perturbations up to which the picture of ranks has names
_LEVEL = 0.05  # of the FDR
_TOPS = {"vcc2026": "a replicate"}  # what a scaled score of 1 means
HEADS = ("metric", "raw", "baseline", "ceiling", "scaled")


def page(
    title: str, metrics: Sequence[Metric], overall: float | None, found: list[Scored],
    facts: dict[str, Any],
) -> Page:  # fmt: skip
    """Build the page."""
    made = Page("vcell evaluate", title)
    if overall is not None:
        over = f", mean of {len(found)} contexts" if len(found) > 1 else ""
        top = _TOPS.get(str(facts.get("rules")), "perfect")
        made.headline(f"Overall {overall:.4f}{over}", _detail(metrics, found, top))
        made.figure("Overall", _gauge(overall, metrics, top))
    else:  # rules without an overall score
        first = (f"{called(one.name).short} {one.raw:.4g}" for one in metrics[:3])
        of = sum(len(one.perturbations) for one in found)
        made.headline(", ".join(first), f"{console.count(of, 'perturbation')} scored.")
    notes = _notes(found)
    if notes:
        made.warnings(notes)
    made.heading("Scores")
    _scores(made, metrics)
    if len(found) > 1:
        _contexts(made, found)
    for one in found:
        _context(made, one, several=len(found) > 1)
    made.heading("How this was computed")
    lines = flat(facts)
    detected = {name: value for name, value in lines.items() if name.startswith("detected")}
    made.facts({name: value for name, value in lines.items() if name not in detected})
    made.facts(detected, "what was detected")
    return made


def _detail(metrics: Sequence[Metric], found: list[Scored], top: str) -> str:
    """Return what the scale is, on how much the score rests, and which metrics are at its floor."""
    of = console.count(sum(len(one.perturbations) for one in found), "perturbation")
    detail = f"0 is the baseline, 1 is {top}; {of} scored."
    floor = [called(metric.name).short for metric in metrics if metric.scaled == 0]
    return detail + (f" No better than the baseline: {', '.join(floor)}." if floor else "")


def _notes(found: list[Scored]) -> list[str]:
    """Return what a reader must know before the scores are believed."""
    lines = [
        f"{one.context or 'All cells'}: only {one.perturbations[0]} is scored; without others to "
        "compare with, PDS and the overall score mean nothing."
        for one in found
        if len(one.perturbations) == 1
    ]
    return list(dict.fromkeys(lines + [note for one in found for note in one.facts["notes"]]))


def _scores(made: Page, metrics: Sequence[Metric]) -> None:
    """List the metrics by their common names, with an arrow towards better values."""
    rows = []
    heads = [
        head for head in HEADS if head != "ceiling" or any(m.ceiling is not None for m in metrics)
    ]
    for metric in metrics:
        name = called(metric.name)
        arrow = "↓ less" if name.less_is_better else "↑ more"
        other = metric.name if metric.name != name.short else ""
        shown = [v for head, v in zip(HEADS, metric.row(), strict=True) if head in heads]
        rows.append((name.short, arrow, *shown[1:], name.meaning, other))
    made.table(("metric", "better", *heads[1:], "meaning", "in tables"), rows)


def _contexts(made: Page, found: list[Scored]) -> None:
    """List the scores of every context side by side."""
    scaled = {m.name: called(m.name).short for m in found[0].metrics if m.scaled is not None}
    rows = []
    for one in found:
        parts = {metric.name: metric.scaled for metric in one.metrics}
        overall = None if one.overall is None else round(one.overall, 4)
        rows.append(
            (one.context, len(one.perturbations), overall, *(parts.get(name) for name in scaled))
        )
    made.table(("context", "perturbations", "overall", *scaled.values()), rows)


def _gauge(overall: float, metrics: Sequence[Metric], top: str) -> str:
    """Draw the overall score between the baseline and the ceiling, or perfection."""
    if top != "perfect":
        return svg.gauge(overall, low=0.0, high=1.0, low_name="baseline", high_name=top)
    ceilings = [_ceiling(metric) for metric in metrics if metric.scaled is not None]
    known = [value for value in ceilings if value is not None]
    if known and len(known) == len(ceilings):
        high, name = sum(known) / len(known), "ceiling"
    else:
        high, name = 1.0, top
    return svg.gauge(overall, low=0.0, high=high, low_name="baseline", high_name=name)


def _ceiling(metric: Metric) -> float | None:
    """Return the ceiling on the scale of the score: 0 is the baseline, 1 is perfect."""
    if metric.ceiling is None or metric.baseline is None:
        return None
    perfect = 0.0 if called(metric.name).less_is_better else 1.0
    room = perfect - metric.baseline
    return (metric.ceiling - metric.baseline) / room if room else None


def _context(made: Page, one: Scored, *, several: bool) -> None:
    if several:
        made.heading(f"Context {one.context}")
        _scores(made, one.metrics)
    made.heading("Per perturbation")
    for metric in one.metrics:
        column = one.per_perturbation.get(metric.name)
        if column is not None:
            _bars(made, one, metric, column)
    if one.distances is not None and len(one.perturbations) > 1:
        made.figure(
            "Nearest real effects",
            _ranked(one, one.distances),
            "Row by row, the rank of every real effect (columns) by its distance to the predicted "
            "one; a perfect prediction has a dark diagonal.",
        )
    if one.effects is not None:
        _effects(made, one)
    if one.tables:
        _volcanoes(made, one)


def _ranked(one: Scored, distances: NDArray[np.float64]) -> str:
    """Draw the ranks of the distances, with names if there is room."""
    ranked, names = ranks(distances).tolist(), one.perturbations
    if len(names) <= _NAMED:
        rows = dict(zip(names, ranked, strict=True))
        return svg.named_heat_map(rows, names, legend="rank", signed=False)
    return svg.heat_map(ranked, rows="predicted effect", columns="real effect", legend="rank")


def _bars(made: Page, one: Scored, metric: Metric, column: NDArray[np.float64]) -> None:
    """Draw every perturbation, the best first; of many, how they are spread, and the worst."""
    name = called(metric.name)
    sign = 1 if name.less_is_better else -1
    order = np.argsort(np.nan_to_num(sign * column, nan=np.inf), kind="stable")
    title, caption = name.short, "The dashed line is the baseline's mean."
    if len(order) > _MOST_BARS:
        made.figure(
            f"{title} of {len(order):,} perturbations",
            svg.histogram(column.tolist(), x=title, y="perturbations"),
        )
        order, title = order[-_WORST:], f"{title}: the {_WORST} worst"
    values = {one.perturbations[i]: float(column[i]) for i in order}
    known = metric.baseline is not None and bool(np.isfinite(metric.baseline))
    picture = svg.bars(values, x=name.short, reference=metric.baseline if known else None)
    made.figure(title, picture, caption * known)


def ranks(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank each row's distances, ties with their mean rank; 0 is the nearest."""
    return mean_ranks(distances) - 1


def _effects(made: Page, one: Scored) -> None:
    """Plot real against predicted changes of expression for the strongest perturbations."""
    real, pred = one.effects or (np.zeros((0, 0)), np.zeros((0, 0)))
    strongest = np.argsort(-np.abs(real).sum(axis=1), kind="stable")[:_MOST_CLOUDS]
    for i in strongest:
        some = np.argsort(-np.abs(real[i]) - np.abs(pred[i]), kind="stable")[:_MOST_POINTS]
        made.figure(
            f"{one.perturbations[i]}: change of expression",
            svg.scatter(
                {"genes": (real[i, some].tolist(), pred[i, some].tolist())},
                x="real", y="predicted", diagonal=True,
                names={"genes": one.genes[some].tolist()} if one.genes is not None else None,
                labels=4,
            ),
        )  # fmt: skip


def _volcanoes(made: Page, one: Scored) -> None:
    """Plot both sides' fold changes and FDR for the perturbations with most real DE genes."""
    tables = {"real": one.tables["real_de"], "predicted": one.tables["pred_de"]}
    calls = [int((fdr < _LEVEL).sum()) for fdr in tables["real"].fdr]
    most = np.argsort([-n for n in calls], kind="stable")[:3]
    for row in [row for row in most.tolist() if calls[row]]:
        clouds, names = {}, {}
        for side, table in tables.items():
            finite = np.flatnonzero(np.isfinite(table.lfc[row]))
            least = np.argsort(table.p[row, finite], kind="stable")[: _MOST_POINTS // 2]
            genes = finite[least]
            height = -np.log10(np.maximum(table.fdr[row, genes], 1e-300))
            clouds[side] = (table.lfc[row, genes].tolist(), height.tolist())
            names[side] = table.genes[genes].tolist()
        made.figure(
            f"{one.perturbations[row]}: significance of the change",
            svg.volcano(clouds, y="-log10 FDR", names=names, level=-np.log10(_LEVEL)),
            f"The dashed line is an FDR of {_LEVEL}.",
        )


def flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested facts into names and values."""
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
