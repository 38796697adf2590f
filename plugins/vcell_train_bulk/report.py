"""The report of train-bulk: scores next to logistic regression, the verdict, a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.patients import pictures, saved, scores
from vcell.patients.nested import MODEL
from vcell.report import Page, Table

if TYPE_CHECKING:
    from vcell.patients.cohort import Cohort
    from vcell.patients.saved import BulkStudy
    from vcell.report.page import Tone
    from vcell.runs import Run

COLUMNS = ("model", "AUC", "95 % interval", "ECE", "ECE if honest", "Brier", "accuracy")


def write(run: Run, cohort: Cohort, plan: BulkStudy) -> dict[str, Any]:
    """Score the folds; write scores.json, predictions.csv and the page; return the summary."""
    outers = saved.finished(run, plan)
    judge = saved.judge_of(cohort, plan)
    given = saved.pooled(outers, cohort.n)
    found = {name: judge.scored(p) for name, p in given.items()}
    verdict = scores.verdict(judge, MODEL, given)
    summary = {"models": found, "verdict": verdict, "shuffled": plan.shuffled}
    run.save_file("scores.json", summary)
    columns = ["patient", "fold", "outcome"]
    columns += [f"{name}: {outcome}" for name in given for outcome in cohort.outcomes]
    rows = [
        (
            cohort.patients[i], int(plan.fold[i]), cohort.outcomes[cohort.outcome[i]],
            *(float(v) for p in given.values() for v in p[i]),
        )
        for i in range(cohort.n)
    ]  # fmt: skip
    run.save_file("predictions.csv", Table.of(columns, rows).csv())
    page = _page(run, cohort, plan, found, verdict)
    for one in pictures.of_run(cohort, outers):
        page.figure(one.title, one.svg(), one.caption)
    run.save_file("index.html", page.write)
    return {"held_out": {name: _flat(one) for name, one in found.items()}, "verdict": verdict}


def _flat(one: dict[str, Any]) -> dict[str, float]:
    return {"auc": one["auc"]["value"], **{k: v for k, v in one.items() if k != "auc"}}


def rows_of(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of the table of models."""
    return [
        (
            name, one["auc"]["value"], f"{one['auc']['low']:.3f} to {one['auc']['high']:.3f}",
            one["ece"], one["ece_expected"], one["brier"], one["accuracy"],
        )
        for name, one in found.items()
    ]  # fmt: skip


def _page(
    run: Run, cohort: Cohort, plan: BulkStudy, found: dict[str, Any], verdict: dict[str, Any]
) -> Page:
    page = Page("vcell train-bulk", f"{run.name}: {run.meta['config'].get('cells') or ''}")
    tones: dict[str, Tone] = {"beats": "good", "worse": "bad"}
    page.headline(verdict["text"], tone=tones.get(verdict["claim"], "plain"))
    if plan.shuffled:
        page.warnings(
            ["Outcomes were shuffled between patients: every AUC here should be near .5."]
        )
    page.table(COLUMNS, rows_of(found))
    page.text(
        "Each patient was tested once, by models that had learnt from other patients only. "
        "AUC counts pairs of patients of one fold; intervals are over patients. ECE: mean distance "
        "between confidence and accuracy in ten bins, next to that of a calibrated model on as "
        "many patients. Logistic regression on proportions sees the test patients' own cells; the "
        "others see bulk."
    )
    numbers = np.bincount(cohort.outcome, minlength=len(cohort.outcomes))
    page.facts(
        {
            **dict(zip(cohort.outcomes, numbers.tolist(), strict=True)),
            "outer folds": plan.folds, "cell types": len(cohort.types),
            "genes": len(cohort.genes), "further samples": len(cohort.more_of),
            "states learnt without the test patients": str(plan.learners[0] != saved.WHOLE).lower()
            if cohort.states else None,
        }
    )  # fmt: skip
    return page


def tell(run: Run, cohort: Cohort, summary: dict[str, Any]) -> None:
    """Print the result of the run."""
    found = saved_scores(run)["models"]
    table = console.table(rows_of(found), COLUMNS)
    result = {
        "run": str(run.path), "patients": cohort.n, "outcomes": list(cohort.outcomes),
        "models": found, "verdict": summary["verdict"], "page": str(run.path / "index.html"),
    }  # fmt: skip
    console.result(result, f"{table}\n\n{summary['verdict']['text']}\n{run.path / 'index.html'}")


def saved_scores(run: Run) -> dict[str, Any]:
    """Read the scores of a finished run."""
    import json

    found: dict[str, Any] = json.loads((run.path / "scores.json").read_text())
    return found
