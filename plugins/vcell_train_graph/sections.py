"""The sections of `vcell report` for train-graph: models on held-out sets, and the control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.report import svg
from vcell_train_graph.held_out import FILE, HeldOutSets, correlation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vcell.report import Report
    from vcell.runs import Run

_MOST = 2000  # sets in a figure
_WORST = 30  # sets listed
_MODELS = 8  # in a figure


def sections(run: Run, report: Report) -> None:
    """Show r of every model on each kind of split, the control, and predicted against observed."""
    parts = [part for part in run.parts() or [run] if (part.path / FILE).is_file()]
    if not parts:
        return
    _splits(report, (run.meta.get("summary") or {}).get("splits") or {})
    for name, those in _by_split(parts):
        report.heading(f"Held-out sets, {name}")
        _correlations(report, those)
        _predicted(report, str(run.meta.get("model") or those[0].meta.get("model")), those)


def _splits(report: Report, splits: dict[str, Any]) -> None:
    """Write the table of models by kind of split, and the verdict of each kind."""
    if not splits:
        return
    report.heading("Models on held-out sets")
    for name, of in splits.items():
        for verdict in (of["verdict"]["text"], (of.get("control") or {}).get("text")):
            if verdict:
                report.text(f"{name}: {verdict}")
    models = list(dict.fromkeys(model for of in splits.values() for model in of["held_out"]))
    columns = ["model"]
    for name in splits:
        columns += [f"r, {name}", "± over folds", "explained"]
    rows = []
    for model in models:
        row: list[Any] = [model]
        for of in splits.values():
            scores, spread = of["held_out"].get(model, {}), of["spread"].get(model, {})
            row += [scores.get("r"), spread.get("r"), scores.get("explained")]
        rows.append(row)
    report.table(columns, rows)
    control = [
        (name, of["control"]["mean"], of["control"]["low"], of["control"]["high"])
        for name, of in splits.items()
        if of.get("control")
    ]
    if control:
        report.text("Variance explained beyond the control, set by set, with its 95 % interval:")
        report.table(("split", "difference", "low", "high"), control)


def _by_split(parts: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Yield the runs by kind of split."""
    by = str(parts[0].meta.get("held_out_by", "query pairs"))
    for name, at_random in ((f"{by} never seen", False), ("at random", True)):
        those = [p for p in parts if (p.meta["config"]["fold"] in (None, "random")) == at_random]
        if those:
            yield name, those


def _correlations(report: Report, parts: Sequence[Run]) -> None:
    """Plot r of every model in every fold and draw."""
    points: dict[str, dict[str, float]] = {}
    for part in parts:
        config = part.meta["config"]
        wiring = config.get("wiring", "given")
        where = f"fold {config['fold'] or 'random'}, draw {config['draw']}"
        for model, score in (part.meta.get("summary") or {}).get("held_out", {}).items():
            if wiring == "given":
                points.setdefault(model, {})[where] = score["r"]
            elif model == part.meta.get("model"):
                points.setdefault(f"{model}, {wiring}", {})[where] = score["r"]
    mean = {name: float(np.mean(list(of.values()))) for name, of in points.items()}
    shown = sorted(points, key=lambda name: -mean[name])[:_MODELS]
    report.figure(
        "Correlation of predicted and observed values",
        svg.strip({name: points[name] for name in shown}, x="r", reference=0),
        "One point per fold and draw, named in the tooltip; the tick is a model's mean.",
    )


def _predicted(report: Report, model: str, parts: Sequence[Run]) -> None:
    """Plot predictions against measured values, and list the largest errors."""
    first = [p for p in parts if p.meta["config"].get("wiring", "given") == "given"]
    found = [HeldOutSets.of(part) for part in first if part.meta["config"]["draw"] == 0]
    found = [one for one in found if model in one.predicted]
    if not found:
        return
    predicted = np.concatenate([one.predicted[model] for one in found])
    values = np.concatenate([one.values for one in found])
    names = [" ".join(genes) for one in found for genes in one.targets]
    n = len(values)
    some = np.sort(np.random.default_rng(0).permutation(n)[:_MOST])
    together = " over all folds together" if len(found) > 1 else ""
    drawn = f"{len(some):,} of {n:,} sets, drawn at random. " if len(some) < n else ""
    report.figure(
        f"{model}: observed against predicted",
        svg.scatter(
            {model: (predicted[some].tolist(), values[some].tolist())}, x="predicted", y="observed",
            diagonal=True, names={model: [names[i] for i in some]},
        ),
        f"{drawn}r = {correlation(predicted, values):.3f}{together}; "
        "the line is where both are equal.",
    )  # fmt: skip
    worst = np.argsort(-np.abs(predicted - values), kind="stable")[:_WORST]
    rows = [(names[i], float(values[i]), float(predicted[i])) for i in worst]
    report.table(("genes", "observed", "predicted"), rows, "sets, the largest error first")
