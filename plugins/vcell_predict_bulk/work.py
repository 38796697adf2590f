"""Implementation of `vcell predict-bulk`: match genes, predict, write one row per sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.errors import UserError
from vcell.patients.bulk_table import read_bulk
from vcell.patients.final import FinalBulkModel
from vcell.report import Table
from vcell.runs import Run
from vcell.suggest import few

if TYPE_CHECKING:
    from vcell.patients.bulk_table import BulkTable
    from vcell.patients.final import BulkPrediction
    from vcell_predict_bulk import PredictBulk

_FAR = 3.0  # times the spread of the run's own patients
_SHOWN = 20  # samples in the printed table


def predict(name: str, path: Path, config: PredictBulk) -> None:
    """Run the command."""
    if config.output is None:
        raise UserError("no output is named", hint="-o outcomes.csv")
    outputs.check(config.output, inputs=[path], overwrite=config.overwrite, suffixes=(".csv",))
    run = Run.open(name, root=config.runs)
    model = FinalBulkModel.load(run)
    table = read_bulk(path, model.genes, model.used, layer=config.layer, least=config.least_genes)
    found = model.predict(table.counts)
    far = [table.samples[i] for i in np.flatnonzero(found.distance > _FAR)]
    if far:
        console.warn(
            f"further than {_FAR:g} spreads from the patients of {run.name}: {len(far)} of "
            f"{console.count(len(table.samples), 'sample')} ({few(far, 3)}): "
            "other platform, tissue or units?"
        )
    columns, rows = _rows(model, table, found)
    result, text = _told(run, model, table, found, columns, rows)
    with console.printed_if_lost({"output": None, **result}, text):
        outputs.write_text(config.output, Table.of(columns, rows).csv())
    console.result({"output": str(config.output), **result}, f"{text}\n{config.output}")


def _rows(
    model: FinalBulkModel, table: BulkTable, found: BulkPrediction
) -> tuple[list[str], list[tuple[Any, ...]]]:
    columns = ["sample", "outcome", *(f"P({name})" for name in model.outcomes), "distance"]
    columns += [f"weight of {name}" for name in model.names]
    best = found.probabilities.argmax(axis=1)
    rows = [
        (
            sample, model.outcomes[best[i]], *map(float, found.probabilities[i]),
            float(found.distance[i]), *map(float, found.weights[i]),
        )
        for i, sample in enumerate(table.samples)
    ]  # fmt: skip
    return columns, rows


def _told(
    run: Run, model: FinalBulkModel, table: BulkTable, found: BulkPrediction,
    columns: list[str], rows: list[tuple[Any, ...]],
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return the result as data and as text."""
    known = json.loads((run.path / "scores.json").read_text())["models"]["train-bulk"]
    auc = known["auc"]
    summary = (
        f"in cross-validation such models reached AUC {auc['value']:.3f} "
        f"({auc['low']:.3f} to {auc['high']:.3f}), ECE {known['ece']:.3f}"
    )
    end = 3 + len(model.outcomes)
    shown = [row[:end] for row in rows[:_SHOWN]]
    text = console.table(shown, tuple(columns[:end]))
    more = f"\n... and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    result = {
        "run": str(run.path), "outcomes": list(model.outcomes),
        "samples": [dict(zip(columns, row, strict=True)) for row in rows],
        "genes": len(model.used), "genes_missing": len(table.missing),
        "far": int((found.distance > _FAR).sum()),
        "cross_validated": {"auc": auc, "ece": known["ece"]},
    }  # fmt: skip
    return result, f"{text}{more}\n\n{summary}"
