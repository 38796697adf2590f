"""The demo's results: one sentence, a table on the console, and a page in its folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcell import console
from vcell.metrics.verdict import judged as judge
from vcell.metrics.verdict import signed
from vcell.report import Chart, Curve, Page, svg
from vcell.runs import Run
from vcell.screen.targets import members

BASELINE, REPLICATE = "mean", "replicate"
# name in the tables of `vcell evaluate`: name for people, and whether 0 is best
_METRICS = {
    "discrimination_score_l1": ("PDS", False),
    "mae": ("MAE", True),
    "overlap_at_N": ("DES", False),
}
_EXPLAINED = {
    BASELINE: "the mean effect of the training perturbations, for every target",
    REPLICATE: "the same experiment again, drawn from the truth: the best score that noise allows",
}


def write(
    folder: Path, trained: dict[str, Any], scores: Mapping[str, Any], done: Mapping[str, Any]
) -> Path:
    """Write the page of the demo, which links all its other pages; return its path."""
    raw = {name: raw_scores(scored) for name, scored in scores.items()}
    model, gains = trained["model"], _gains(raw)
    page = Page("vcell demo", f"{folder}: from simulated counts to a score")
    page.headline(verdict(folder, model, gains), tone="plain")
    page.heading("Scores on perturbations that were not used for learning")
    page.table(("prediction", *_names(raw), "gain over mean"), rows(raw, gains))
    for line in _legend(gains).splitlines():
        page.text(line)
    each = per_perturbation(folder, tuple(gains))
    each.pop(BASELINE, None)  # its gains are 0 by definition: the dashed line
    if each:
        page.figure(
            "Every held-out perturbation",
            svg.strip({name: dict(values) for name, values in each.items()}, x="gain", reference=0),
            "One point per perturbation; the tick is the mean, the dashed line the mean baseline.",
        )
    page.heading("All pages")
    page.links(_pages(folder, trained["run"]))
    _curves(page, Run.open(trained["run"]))
    page.heading("What was done")
    page.facts(facts(folder, trained, done))
    out = folder / "report.html"
    page.write(out)
    return out


def _curves(page: Page, run: Run) -> None:
    """Plot the loss and the validation scores of the training."""
    history = run.history(ranks=False)
    page.heading("Training")
    loss, gain = history.series("loss"), history.series("gain", "eval")
    if loss.values:
        page.chart(Chart("Loss", [Curve.of("", loss.steps, loss.values)], y="loss"))
    if gain.values:
        reading = (
            "What the network adds to the prior that it starts from, on the validation "
            "perturbations: the gain by which the model is chosen, shrunk by its standard error."
        )
        curve = Curve.of("", gain.steps, gain.values)
        page.chart(Chart("Choosing the model", [curve], y="gain", reading=reading))


def _pages(folder: Path, run: str) -> dict[str, str]:
    """Return the pages written by the steps, by title, relative to the demo's folder."""
    pages = {
        "the genes that the model sees": folder / "genes" / "coverage.html",
        "the prediction: genes that change, significance, uncertainty": folder / "prediction.html",
        "the same of the mean baseline": folder / "mean.html",
        "the run: its verdict, curves, speed and settings": Path(run) / "report.html",
    }
    for scored in sorted((folder / "scores").glob("*/index.html")):
        pages[f"scores of {scored.parent.name}"] = scored
    return {title: os.path.relpath(path, folder) for title, path in pages.items() if path.exists()}


def tell(
    folder: Path,
    trained: dict[str, Any],
    scores: Mapping[str, Any],
    done: Mapping[str, Any],
    page: Path,
) -> None:
    """Print the results."""
    raw = {name: raw_scores(scored) for name, scored in scores.items()}
    gains, model = _gains(raw), trained["model"]
    sentence = verdict(folder, model, gains)
    data = {
        "verdict": sentence,
        "gain_over_mean": gains,
        "scores": raw,
        "run": trained["run"],
        "report": str(page),
        "seconds": done["finish"],
    }
    table = console.table(rows(raw, gains), ("prediction", *_names(raw), "gain over mean"))
    lines = (f"{name:10s} {text}" for name, text in facts(folder, trained, done).items())
    console.result(
        data,
        f"\n{sentence}\n\n{table}\n\n{_legend(gains)}\n\n" + "\n".join(lines),
    )


def verdict(folder: Path, model: str, gains: Mapping[str, float]) -> str:
    """Return whether the model beats the mean baseline, as the paired interval shows."""
    each = per_perturbation(folder, (model, BASELINE))
    sentence = f"{model} gains {signed(gains[model])} over the mean"
    if each:
        names = [name for name, _ in each[model]]
        values = {kind: np.array([value for _, value in pairs]) for kind, pairs in each.items()}
        judged = judge(model, values, [members(name) for name in names], weak=(BASELINE,))
        sentence = judged.text
    if REPLICATE in gains:
        sentence += f"; a replicate of the experiment gains {signed(gains[REPLICATE])}"
    return sentence


def per_perturbation(
    folder: Path, predictions: Sequence[str]
) -> dict[str, list[tuple[str, float]]]:
    """Return each perturbation's gain over the mean, by prediction; their means are the gains."""
    tables = {}
    for name in dict.fromkeys((BASELINE, *predictions)):
        try:
            with (folder / "scores" / name / "results.csv").open(newline="") as file:
                tables[name] = list(csv.DictReader(file))
        except OSError:
            return {}
    base = {
        metric: sum(float(row[metric]) for row in tables[BASELINE]) / len(tables[BASELINE])
        for metric in _METRICS
        if metric in tables[BASELINE][0]
    }
    found = {}
    for name in predictions:
        rows_ = zip(tables[name], tables[BASELINE], strict=True)
        found[name] = [(row["perturbation"], _gain(row, zero, base)) for row, zero in rows_]
    return found


def _gain(row: Mapping[str, str], zero: Mapping[str, str], base: Mapping[str, float]) -> float:
    """Return a perturbation's score between the baseline and perfect, on the pooled scale."""
    parts = []
    for metric, mean in base.items():
        room = -mean if _METRICS[metric][1] else 1 - mean
        parts.append((float(row[metric]) - float(zero[metric])) / room if room else 0.0)
    return sum(parts) / len(parts)


def raw_scores(scored: Mapping[str, Any]) -> dict[str, float]:
    """Return the challenge's three metrics of one evaluation."""
    found = scored["metrics"]
    return {label: found[name]["raw"] for name, (label, _) in _METRICS.items() if name in found}


def _names(raw: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(next(iter(raw.values())))


def _gains(raw: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the challenge's overall score of each prediction, scaled by the mean baseline."""
    zero_is_best = dict(_METRICS.values())
    base = raw[BASELINE]
    gains = {}
    for name, scores in raw.items():
        parts = [
            1 - scores[m] / base[m] if zero_is_best[m] else (scores[m] - base[m]) / (1 - base[m])
            for m in scores
        ]
        gains[name] = sum(parts) / len(parts)
    return gains


def rows(raw: Mapping[str, Mapping[str, float]], gains: Mapping[str, float]) -> list[list[Any]]:
    """Return one row per prediction."""
    return [[name, *scores.values(), gains[name]] for name, scores in raw.items()]


def _legend(gains: Mapping[str, float]) -> str:
    explained = [f"{name}: {_EXPLAINED[name]}" for name in gains if name in _EXPLAINED]
    return (
        "PDS (discrimination) and DES (overlap of significant genes): 1 is best; MAE: 0 is best.\n"
        "Gain: mean of the three, scaled as the challenge does, without its floor at 0.\n"
        "A model can exceed a replicate: a replicate has its own noise, while a model averages.\n"
        + "\n".join(explained)
    )


def facts(folder: Path, trained: dict[str, Any], done: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of all files."""
    aside = done["set-aside"]
    return {
        "held out": f"{len(aside['perturbations'])} perturbations, {aside['held_out']:,} cells "
        "with controls",
        "run": f"{trained['run']} (vcell runs show {trained['run']})",
        "report": str(folder / "report.html"),
        "scores": f"{folder / 'scores'} (a page each)",
        "took": console.duration(done["finish"]),
    }
