"""A model card: the header that model hubs read, then uses, limits, data and results.

What a run did not record appears as "not recorded".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vcell.outputs import MADE_BY, made_by
from vcell.report import Markdown

if TYPE_CHECKING:
    from vcell_report.account import Account

_UNKNOWN = "not recorded"


def card(account: Account) -> str:
    """Return the card of one run."""
    meta, best = account.meta, account.best
    name = str(meta.get("model") or meta.get("command") or "model")
    report = Markdown(f"{name}, run {account.run.name}")
    verdict, tone = account.verdict()
    report.headline(verdict, tone=tone)
    report.heading("Uses and limits")
    report.text(
        "Predictions are valid for cells, conditions and measurements like those of the training "
        "data below, and only as far as the verdict above goes. They must not be used for "
        "decisions about patients."
    )
    report.heading("Training")
    report.facts(
        {
            "command": meta.get("command") or _UNKNOWN,
            "parameters": meta.get("parameters") or _UNKNOWN,
            "steps": account.history.step or _UNKNOWN,
            "precision": meta.get("precision") or _UNKNOWN,
            "devices": ", ".join(meta.get("devices") or []) or _UNKNOWN,
            "seed": _UNKNOWN if meta.get("seed") is None else meta["seed"],
            **{key: value or _UNKNOWN for key, value in account.cost().items()},
        }
    )
    report.heading("Data")
    report.table(("file", "cells", "genes", "bytes"), account.data())
    report.heading("Evaluation")
    rows = account.differences()
    if rows:
        report.table(("baseline", "difference", "low", "high", "held out"), rows)
    if best is not None:
        report.text(f"Validation: {account.monitor} {best[1]:.4g} at step {best[0]:,}.")
    if not rows and best is None:
        report.text(_UNKNOWN)
    return _head(account, name) + report.markdown()


def _head(account: Account, name: str) -> str:
    """Return the YAML header; JSON strings are valid YAML."""
    best = account.best
    lines = [
        "---",
        f"{MADE_BY}: {made_by()}",
        "library_name: vcell",
        "tags:",
        "- single-cell",
        "- perturbation",
    ]
    data = [str(row[0]) for row in account.data() if row[0]]
    if data:
        lines += ["datasets:", *(f"- {_quoted(path)}" for path in data)]
    if best is not None:
        lines += [
            "model-index:",
            f"- name: {_quoted(name)}",
            "  results:",
            "  - task: {type: other, name: perturbation prediction}",
            "    dataset: {type: custom, name: validation perturbations}",
            "    metrics:",
            f"    - {{type: {_quoted(account.monitor)}, value: {best[1]:.6g}}}",
        ]
    return "\n".join([*lines, "---", "", ""])


def _quoted(value: Any) -> str:
    return json.dumps(str(value), ensure_ascii=False)
