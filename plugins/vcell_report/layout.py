"""The order of a report: verdict, training, cost and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.metrics.names import WITHOUT, label
from vcell.plugin import announced
from vcell.report import Page, Report
from vcell.runs import differing
from vcell.runs.held_out import beside
from vcell_report import charts
from vcell_report.account import Account, brief, short

if TYPE_CHECKING:
    from vcell.runs import Run

GROUP = "vcell.reports"  # command -> sections(run, report), announced next to the command
_MOST = 12  # runs whose curves can be distinguished
_TABLES = {  # of a run's summary: heading and what it holds
    "held_out": ("Held-out scores", ""),
    "spread": ("Spread over the folds", "Standard deviations of the scores above."),
    "levels": (
        "What the measurement allows",
        "Reachable: half of the cells predicts the others; chance: another perturbation does.",
    ),
}


def write(report: Report, accounts: Sequence[Account]) -> None:
    """Write everything about the runs into a page or Markdown."""
    one = accounts[0] if len(accounts) == 1 else None
    for account in accounts:
        verdict, tone = account.verdict()
        detail = "" if one else account.run.name
        report.headline(verdict, detail, tone)
    if one is None:
        _compared(report, accounts)
    else:
        _claims(report, one)
        _sections(report, one.run)
        _parts(report, one)
    report.heading("Curves")
    shown = charts.validation(accounts) + charts.training(accounts)
    for chart in shown:
        report.chart(chart)
    if not shown:
        report.text(
            "No training was recorded: a model in closed form has none, nor a run of others."
        )
    for account in accounts:
        _ground(report, account, several=one is None)
    timing = charts.speed(accounts)
    if timing:
        report.heading("Training, step by step")
    for chart in timing:
        report.chart(chart)


def _claims(report: Report, account: Account) -> None:
    rows = account.differences()
    if rows:
        report.heading("Against each baseline")
        report.text("Paired difference over everything held out, with its 95 % interval.")
        wide = 5 if any(row[-1] is not None for row in rows) else 4
        heads = ("baseline", "difference", "low", "high", "held out")
        report.table(heads[:wide], [row[:wide] for row in rows])
    found = sorted(account.summary.items(), key=lambda entry: entry[0] != "held_out")
    for name, table in found:
        if name != "verdict" and _is_table(table):
            columns = list(dict.fromkeys(key for row in table.values() for key in row))
            heading, text = _TABLES.get(name, (name.replace("_", " ").capitalize(), ""))
            report.heading(heading)
            if text:
                report.text(text)
            whole = [column for column in columns if not column.endswith(WITHOUT)]
            report.table(*_scores(table, whole, whole))
            some = [column for column in columns if column.endswith(WITHOUT)]
            if some:
                bare = [column.removesuffix(WITHOUT) for column in some]
                report.table(*_scores(table, some, bare), "without the perturbations' own genes")


def _scores(
    table: dict[str, dict[str, Any]], columns: Sequence[str], names: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the columns and rows of a table of scores, with the metrics' names for people."""
    heads = ("", *(label(name) for name in names))
    return heads, [(key, *(row.get(c) for c in columns)) for key, row in table.items()]


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(row, dict) and row for row in value.values())
        and not any(isinstance(v, dict | list) for row in value.values() for v in row.values())
    )


def _parts(report: Report, account: Account) -> None:
    """Show the folds or trials of a run."""
    parts = [Account.of(part) for part in account.run.parts()]
    if not parts:
        return
    report.heading("Parts of this run")
    monitor = next((part.monitor for part in parts if part.monitor), "best")
    settings = differences(parts)
    rows = [
        (
            name,
            *(setting[i] for setting in settings),
            part.status,
            part.history.step,
            None if part.best is None else part.best[1],
            part.verdict()[0],
        )
        for i, (name, part) in enumerate(zip(short(parts), parts, strict=True), 1)
    ]
    of = (setting[0] for setting in settings)
    report.table(("part", *of, "status", "steps", monitor, "verdict"), rows)
    for chart in charts.validation(parts[-_MOST:])[:3]:
        report.chart(chart)


def _sections(report: Report, run: Run) -> None:
    """Let the plugin of the run's command add its sections."""
    found = announced(GROUP).found.get(str(run.meta.get("command")))
    if found is None:
        return
    try:
        sections: Callable[[Run, Report], None] = found.entry_point.load()
        sections(run, report)
    except Exception as error:  # noqa: BLE001 - a plugin's error must not lose the report
        console.warn(f"{found.target} could not add its sections: {error}")


def _compared(report: Report, accounts: Sequence[Account]) -> None:
    report.heading("Side by side")
    rows: list[tuple[Any, ...]] = [
        ("status", *(a.status for a in accounts)),
        ("steps", *(a.history.step for a in accounts)),
        ("training time", *(a.speed()["training time"] for a in accounts)),
        ("best", *(None if a.best is None else f"{a.monitor} {a.best[1]:.4g}" for a in accounts)),
    ]
    names = short(accounts)
    report.table(("", *names), rows)
    scores = beside([account.run for account in accounts])
    if scores:
        report.table(("held-out score", *names), scores)
    settings = differences(accounts)
    some = "" if settings else "No setting differs. "
    if len({a.meta.get("command") for a in accounts}) > 1:
        some += "Settings that not all of the commands have are left out."
    if some:
        report.text(some.rstrip())
    if settings:
        report.table(("setting", *names), settings)


def differences(accounts: Sequence[Account]) -> list[tuple[str, ...]]:
    """Return the settings that differ between runs."""
    found = differing([a.run for a in accounts])
    found.pop("runs", None)
    return [(key, *(brief(value, 40) for value in values)) for key, values in found.items()]


def _ground(report: Report, account: Account, *, several: bool) -> None:
    """Write speed, cost, settings, data, environment and warnings of one run."""
    if several:
        report.heading(account.run.name)
    warnings = account.warnings()
    if warnings:
        report.heading("Warnings")
        report.warnings(warnings)
    report.heading("Speed and cost")
    where = account.bottleneck()
    if where:
        report.text(where)
    known = account.speed()
    cost = {key: value or "not recorded" for key, value in account.cost().items()}
    report.facts({key: value for key, value in known.items() if value is not None} | cost)
    report.heading("Settings")
    rows = account.settings()
    chosen = [row for row in rows if row[2] not in ("default", "")]
    if chosen:
        report.table(("setting", "value", "from"), chosen)
    report.table(("setting", "value", "from"), rows, "all settings")
    report.heading("Data and surroundings")
    if account.data():
        report.table(("file", "cells", "genes", "bytes"), account.data())
    facts = {key: value for key, value in account.surroundings().items() if value is not None}
    if isinstance(report, Page):
        report.facts(facts, "machine, devices, versions")
    else:
        report.facts(facts)
