"""The files of a selection: the table of genes, the coverage, and a page with figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.report import Page, frame, svg
from vcell_select_genes.coverage import kept_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.hvg import Ranking
    from vcell_select_genes.arrange import Arrangement, Group
    from vcell_select_genes.responsive import Responses


def genes_table(
    genes: NDArray[Any],
    chosen: Arrangement,
    groups: Sequence[Group],
    ranking: Ranking,
    effects: Responses | None,
) -> str:
    """Return selected_genes.csv."""
    standing = np.empty(len(genes), np.int64)
    standing[ranking.order] = np.arange(1, len(genes) + 1)
    columns: dict[str, NDArray[Any]] = {"n_cells": ranking.n_cells, "hvg_rank": standing}
    columns.update(ranking.scores)
    if effects is not None:
        columns["n_responses"] = effects.n_responses
        columns["strongest_t"] = effects.strongest
    members = {group.name: set(group.genes.tolist()) for group in groups}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["gene", "rank", "phase", "groups", *columns])
    for rank, (gene, phase) in enumerate(zip(chosen.genes, chosen.phase, strict=True), 1):
        names = "|".join(name for name, inside in members.items() if int(gene) in inside)
        values = [_number(column[gene]) for column in columns.values()]
        writer.writerow([genes[gene], rank, phase + 1, names, *values])
    return out.getvalue()


def _number(value: Any) -> str:
    number = float(value)
    if np.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def as_json(data: dict[str, Any]) -> str:
    """Return coverage.json."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def page(
    title: str,
    genes: NDArray[Any],
    report: dict[str, Any],
    chosen: Arrangement,
    ranking: Ranking,
    effects: Responses | None,
) -> Page:
    """Build coverage.html: what the selection keeps, as tables and figures."""
    made = Page("vcell select-genes", title)
    made.headline(*_summary(report, chosen, ranking, effects, len(genes)))
    phases = [f"first {size:,}" for size in chosen.phases]
    made.table(
        ["group", "genes in the file", *phases],
        [(row["group"], row["genes"], *row["phases"]) for row in report["groups"]],
    )
    made.heading("Pictures")
    if effects is not None and report["responses"]["responses"]:
        made.figure(
            "Responses kept",
            _curves(chosen, ranking, effects),
            "Share of all responses of training perturbations among the first genes: of this "
            "choice, and of highly variable genes alone.",
        )
        lost = {r["gene"]: r["perturbations"] for r in report["responses"]["lost_genes"][:20]}
        made.figure(
            "Responding genes that are lost",
            svg.bars(lost, x="perturbations it responds to") if lost else frame.empty("none lost"),
            "The genes left out that respond to most perturbations." if lost else "",
        )
    made.figure(
        "Variability",
        _cloud(genes, chosen, ranking),
        "The pointer names the genes that lie farthest out.",
    )
    made.figure(
        "Groups", svg.bars({row["group"]: row["phases"][-1] for row in report["groups"]},
        x="genes chosen"), "A gene may be in several groups.",
    )  # fmt: skip
    return made


def _summary(
    report: dict[str, Any],
    chosen: Arrangement,
    ranking: Ranking,
    effects: Responses | None,
    of: int,
) -> tuple[str, str]:
    """Describe what the selection keeps, and how many of the targets it includes."""
    n = len(chosen.genes)
    sentence = f"{console.count(n, 'gene')} of {of:,} chosen"
    if effects is not None and report["responses"]["responses"]:
        count = effects.n_responses
        share = kept_curve(count, chosen.genes)[-1]
        plain = kept_curve(count, ranking.order[:n])[-1]
        sentence += (
            f": they keep {share:.0%} of the responses of training perturbations; "
            f"the {n:,} most variable genes would keep {plain:.0%}"
        )
    if not (targets := report.get("targets")):
        return sentence, ""
    detail = f"targets chosen: {targets['phases'][-1]:,} of {targets['wanted']:,}"
    if targets["not_in_file"]:
        detail += f"; not in the file: {len(targets['not_in_file']):,}"
    return sentence, detail


def _curves(chosen: Arrangement, ranking: Ranking, effects: Responses) -> str:
    count = effects.n_responses
    selected = kept_curve(count, chosen.genes)
    plain = kept_curve(count, ranking.order[: len(chosen.genes)])
    at = np.unique(np.linspace(0, len(selected) - 1, 200).astype(int))
    x = (at + 1).tolist()
    series = {
        "this choice": (x, selected[at].tolist()),
        "highly variable only": (x, plain[at].tolist()),
    }
    return svg.line(series, x="genes", y="share of responses kept")


def _cloud(genes: NDArray[Any], chosen: Arrangement, ranking: Ranking) -> str:
    scores = {
        "dispersions_norm": "normalised dispersion", "variances_norm": "normalised variance",
        "residual_variances": "residual variance",
    }  # fmt: skip
    name = next(name for name in scores if name in ranking.scores)
    inside = np.zeros(len(ranking.n_cells), bool)
    inside[chosen.genes] = True
    share = ranking.n_cells
    drawn = np.flatnonzero((share > 0) & np.isfinite(ranking.scores[name]))
    drawn = drawn[:: max(1, len(drawn) // 4000)]  # at most some thousands of dots
    rows = {"others": drawn[~inside[drawn]], "chosen": drawn[inside[drawn]]}
    series = {
        label: (share[at].tolist(), ranking.scores[name][at].tolist()) for label, at in rows.items()
    }
    names = {label: genes[at].astype(str).tolist() for label, at in rows.items()}
    return svg.scatter(series, x="cells with the gene", y=scores[name], log_x=True, names=names)
