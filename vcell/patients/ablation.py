"""The contribution of each part: the same folds without it, and the paired difference in AUC.

The number of axes, of steps and the temperature are those that the full model chose in each fold,
so that only one thing differs at a time. This slightly favours the full model, for which they were
chosen.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from vcell.patients import nested, saved
from vcell.patients.features import MODALITIES
from vcell.patients.scores import beyond
from vcell.report import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcell.patients.cohort import Cohort
    from vcell.patients.nested import Search
    from vcell.patients.network import BulkSettings
    from vcell.patients.saved import BulkStudy
    from vcell.runs import Run

FULL = "full"
COLUMNS = ("without", "AUC", "95 % interval", "lost", "95 % interval of the AUC lost", "ECE")


def variants(settings: BulkSettings, search: Search) -> dict[str, tuple[BulkSettings, Search]]:
    """Return the variants by name: each modality left out or alone, each term, each component."""
    there = settings.modalities
    found = {}
    for name in there if len(there) > 1 else ():
        left = tuple(other for other in there if other != name)
        found[f"without {name}"] = dataclasses.replace(settings, modalities=left)
    for name in there if len(there) > 2 else ():
        found[f"{name} alone"] = dataclasses.replace(settings, modalities=(name,))
    if any(name in MODALITIES for name in there):
        for term in ("teacher", "reconstruction", "contrast"):
            if getattr(settings, term):
                nothing: dict[str, Any] = {term: 0.0}
                found[f"without the {term} term"] = dataclasses.replace(settings, **nothing)
    if settings.kl:
        found["without the KL term"] = dataclasses.replace(settings, kl=0.0)
    if settings.fusion != "mean" and len(there) > 1:
        found["mean fusion"] = dataclasses.replace(settings, fusion="mean")
    both = {name: (one, search) for name, one in found.items()}
    if search.members > 1:
        both["one network"] = (settings, dataclasses.replace(search, members=1))
    return both


def without_examples(cohort: Cohort) -> Cohort:
    """Return the cohort without its pseudobulks."""
    return dataclasses.replace(
        cohort, more_bulk=cohort.more_bulk[:0], more_of=cohort.more_of[:0],
        more_cells=cohort.more_cells[:0],
    )  # fmt: skip


def planned(cohort: Cohort, study: BulkStudy) -> dict[str, tuple[BulkSettings, Search, Cohort]]:
    """Return every variant with its cohort."""
    settings = nested.with_what_is_there(study.settings, cohort, study.learners[0])
    tried = variants(settings, study.search)
    found = {name: (*one, cohort) for name, one in tried.items()}
    if len(cohort.more_of):
        found["without pseudobulks"] = (settings, study.search, without_examples(cohort))
    return found


def done(
    run: Run, cohort: Cohort, study: BulkStudy, tick: Callable[[], None] = lambda: None
) -> dict[str, list[nested.Outer]]:
    """Cross-validate every variant; folds that are done already are read."""
    full = saved.finished(run, study)
    found = {}
    for name, (settings, search, seen) in planned(cohort, study).items():
        prefix = f"ablation-{name.replace(' ', '-').lower()}-"
        outers = []
        for k in range(study.folds):
            one = saved.outer_of(run, k, prefix)
            if one is None:
                one = nested.outer(
                    seen, study.train(k), study.tests(k), study.learners[k], settings, search,
                    chosen=full[k].chosen, baselines=False,
                )  # fmt: skip
                saved.save_outer(run, k, one, prefix)
            outers.append(one)
            tick()
        found[name] = outers
    return found


def scored(
    run: Run, cohort: Cohort, study: BulkStudy, found: dict[str, list[nested.Outer]]
) -> list[dict[str, Any]]:
    """Return AUC, loss of AUC and calibration of each variant, the full model first."""
    judge = saved.judge_of(cohort, study)
    full = saved.pooled(saved.finished(run, study), cohort.n)[nested.MODEL]
    rows = [{"variant": FULL, "lost": None, **judge.scored(full)}]
    for name, outers in found.items():
        given = saved.pooled(outers, cohort.n)[nested.MODEL]
        lost = judge.gain(full, given).plain()
        rows.append({"variant": name, "lost": lost, **judge.scored(given)})
    return rows


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return one table of all variants."""
    body = []
    for row in rows:
        auc, lost = row["auc"], row["lost"]
        body.append(
            (
                row["variant"], auc["value"], f"{auc['low']:.3f} to {auc['high']:.3f}",
                lost["value"] if lost else None,
                f"{lost['low']:+.3f} to {lost['high']:+.3f}" if lost else None, row["ece"],
            )
        )  # fmt: skip
    return Table.of(COLUMNS, body)


def verdict(rows: list[dict[str, Any]], n: int) -> str:
    """Say which parts help, corrected for the number of comparisons on n patients."""
    lost = {row["variant"]: row["lost"] for row in rows if row["lost"]}
    reach = beyond(len(lost), n)
    sure = {
        name: one["value"] for name, one in lost.items() if abs(one["value"]) > reach * one["error"]
    }
    falls = [name for name, value in sure.items() if value > 0]
    rises = [name for name, value in sure.items() if value < 0]
    allowed = f"allowing for {len(lost)} comparisons"
    clauses = [f"{allowed}, the AUC falls {', '.join(falls)}"] if falls else []
    clauses += [f"{allowed}, the AUC rises {', '.join(rises)}"] if rises else []
    if not clauses:
        return f"{allowed}, no change makes a difference that can be shown"
    rest = len(lost) - len(sure)
    return "; ".join([*clauses, *([f"the other {rest} show no difference"] if rest else [])])
