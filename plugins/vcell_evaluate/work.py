"""Score each context, average, and report: on the terminal, as JSON, and as a folder."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

from vcell import __version__, console, outputs
from vcell.as_json import plain
from vcell.metrics.evaluation.options import Options
from vcell.metrics.evaluation.scores import Metric, Scored, average
from vcell.metrics.evaluation.scoring import contexts
from vcell_evaluate import layout

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_evaluate import Evaluate

_RULES = {
    "vcc2025": "2025, as cell-eval 0.8 computes it: FDR per perturbation, log2 fold changes of "
    "expm1(mean(log1p)) without pseudocount",
    "vcc2025-official": "2025, as the leaderboard was computed (cell-eval 0.6.6, pdex 0.1.27): one "
    "FDR over all tests, fold changes clipped at 20",
    "vcc2026": "2026, as cell-eval2 0.20 computes it: counts, six members, scaled between the mean "
    "response and a replicate",
    "full": "every metric of cell-eval's full profile, computed as in vcc2025",
}


def run(prediction: Path, real: Path, config: Evaluate) -> None:
    """Score a prediction and report."""
    started = time.monotonic()
    if config.output is not None:
        read = (prediction, real)
        outputs.check(config.output, inputs=read, overwrite=config.overwrite, folder=True)
    if config.cache is not None:
        outputs.check_folder(config.cache)
    found = contexts(prediction, real, _options(config))
    for one in found:
        if len(one.perturbations) < 2:
            console.warn(
                f"{one.context or 'the files'}: only {one.perturbations[0]} is scored: without "
                "others to compare with, discrimination and the overall score mean nothing"
            )
        if one.genes is not None and len(one.genes) < 2:
            console.warn(
                f"{one.context or 'the files'}: only the gene {one.genes[0]} is scored: "
                "discrimination and the overall score mean nothing"
            )
    metrics, overall = average(found)
    facts = _facts(prediction, real, config, found)
    summary = _summary(metrics, overall, found) | facts | {"seconds": time.monotonic() - started}
    text = _text(metrics, overall, found, config.rules)
    if config.output is not None:
        with console.printed_if_lost(summary, text):
            _write(config.output, summary, metrics, found)
        text += f"\n\nwritten: {config.output}"
    console.result(summary, text)


def _options(config: Evaluate) -> Options:
    """Return the settings that affect the scores."""
    names = {field.name for field in fields(Options)} - {"tables"}
    chosen = {name: getattr(config, name) for name in names}
    return Options(**chosen, tables=config.output is not None)


def _facts(prediction: Path, real: Path, config: Evaluate, found: list[Scored]) -> dict[str, Any]:
    """Return what is needed to interpret the scores, and to reproduce them."""
    packages = ("numpy", "scipy", "numba", "anndata")
    return {
        "rules": config.rules,
        "rules_text": _RULES[config.rules],
        "prediction": str(prediction),
        "real": str(real),
        "versions": {"vcell": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
        "detected": {one.context or "all cells": one.facts for one in found},
    }


def _summary(
    metrics: tuple[Metric, ...], overall: float | None, found: list[Scored]
) -> dict[str, Any]:
    summary: dict[str, Any] = {"overall": overall, "metrics": _metrics(metrics)}
    if len(found) > 1:
        summary["contexts"] = {
            str(one.context): {"overall": one.overall, "metrics": _metrics(one.metrics)}
            for one in found
        }
    return summary


def _metrics(metrics: tuple[Metric, ...]) -> dict[str, dict[str, float | None]]:
    return {
        m.name: {"raw": m.raw, "baseline": m.baseline, "ceiling": m.ceiling, "scaled": m.scaled}
        for m in metrics
    }


def _text(
    metrics: tuple[Metric, ...], overall: float | None, found: list[Scored], rules: str
) -> str:
    lines = [
        console.table(
            [m.row() for m in metrics], ("metric", "raw", "baseline", "ceiling", "scaled")
        )
    ]
    if len(found) > 1:
        rows = [
            (
                str(o.context),
                len(o.perturbations),
                None if o.overall is None else f"{o.overall:.4f}",
            )
            for o in found
        ]
        lines.append(console.table(rows, ("context", "perturbations", "overall")))
    if overall is not None:
        lines.append(f"overall {overall:.4f}  ({rules})")
    return "\n\n".join(lines)


def _write(
    path: Path, summary: dict[str, Any], metrics: tuple[Metric, ...], found: list[Scored]
) -> None:
    """Write the folder atomically."""
    from vcell_evaluate.pages import page

    with outputs.folder(path, listed_in="score.json") as out:
        results, per_metric = _results(found)
        layout.write_csv(out / "results.csv", results)
        layout.write_parquet(out / "results.parquet", [layout.as_arrow(results)])
        layout.write_csv(out / "agg_results.csv", _aggregate(per_metric, metrics, found))
        for one in found:
            for name, table in one.tables.items():
                prefix = "" if one.context is None else f"{_safe(one.context)}_"
                layout.write_parquet(out / f"{prefix}{name}.parquet", table.arrow())
        text = json.dumps(plain(summary), indent=2)
        (out / "score.json").write_text(text + "\n")
        title = f"{summary['prediction']} against {summary['real']}, rules {summary['rules']}"
        facts = {k: v for k, v in summary.items() if k not in ("metrics", "contexts", "overall")}
        page(title, metrics, summary["overall"], found, facts).write(out / "index.html")


def _aggregate(
    per_metric: dict[str, Any], metrics: tuple[Metric, ...], found: list[Scored]
) -> layout.Columns:
    """Summarise the perturbations as cell-eval does under the same rules."""
    if not found[0].components:
        return layout.aggregate(per_metric)
    import numpy as np

    from vcell.metrics import vcc2026

    values = per_metric | {
        name: np.concatenate([one.components[name] for one in found])
        for name in found[0].components
    }
    pooled = {m.name: m.raw for m in metrics if m.name == vcc2026.MSE}
    return layout.aggregate_2026(values, pooled, omitted=(vcc2026.NMAE,))


def _safe(name: str) -> str:
    """Turn a context's name into a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _results(found: list[Scored]) -> tuple[layout.Columns, dict[str, Any]]:
    """Stack the values of all contexts, one row per perturbation in each."""
    import numpy as np

    names = [p for one in found for p in one.perturbations]
    contexts = [str(one.context) for one in found for _ in one.perturbations]
    values = {
        name: np.concatenate([one.per_perturbation[name] for one in found])
        for name in found[0].per_perturbation
    }
    return layout.results(names, values, contexts if len(found) > 1 else None), values
