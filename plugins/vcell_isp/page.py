"""The page of a screen: the ranking, how it stands out of its nulls, and who agrees with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.report import svg
from vcell.report.page import Page
from vcell_isp import genes as calls

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from vcell_isp import IspStats
    from vcell_isp.stats import Result

RANKED, TOP = 40, 20
NAMED = (calls.TOWARD, calls.AWAY, calls.MOVES, calls.DELETION_ONLY, calls.INCOHERENT)


def write(path: Path, results: list[Result], table: pd.DataFrame, config: IspStats) -> None:
    """Write the page beside the table."""
    first = results[0]
    targets = first.design.targets
    goal = f"towards {targets[0]}" if targets else "away from the original cell"
    page = Page("In-silico perturbation", f"{', '.join(r.run.name for r in results)}: {goal}")
    _head(page, results, table, config)
    tested = table[np.isfinite(table["effect"].to_numpy(float))]
    page.heading("Genes")
    _ranked(page, table)
    _volcano(page, tested, config)
    _both(page, results, tested)
    _donors(page, first, tested)
    _cells(page, first)
    reasons = table.loc[table["status"] == calls.NOT_RUN, "why"].value_counts().head(12)
    if len(reasons):
        page.heading("Not tested")
        page.text("These genes were not tested. That is not the same as having no effect.")
        page.table(("why", "genes"), [(str(why), int(n)) for why, n in reasons.items()])
    page.write(path)


def _head(page: Page, results: list[Result], table: pd.DataFrame, config: IspStats) -> None:
    called = int(table["status"].isin(NAMED).sum())
    tested = int((table["status"] != calls.NOT_RUN).sum())
    page.headline(
        f"{called:,} of {tested:,} tested genes stand out at an FDR of {config.fdr:g}",
        f"{int((table['status'] == calls.NOT_RUN).sum()):,} genes could not be tested",
    )
    warnings = []
    for result in results:
        summary = result.run.meta.get("summary") or {}
        if summary.get("synthetic"):
            warnings.append("The weights were made up: nothing here says anything about biology.")
        found = summary.get("gates")
        warnings += found["problems"] if found else ["This run was not checked: --no-gates."]
    if warnings:
        page.warnings(dict.fromkeys(warnings))
    for result in results:
        summary = result.run.meta.get("summary") or {}
        names = ("model", "operation", "cells", "events")
        facts = {"run": result.run.name} | {name: summary.get(name) for name in names}
        gates = summary.get("gates") or {}
        labels = {
            "no_op": "a copy that changes nothing", "noise_floor": "noise floor",
            "spearman_exact": "Spearman with exact float32",
            "shuffled_weights": "Spearman with shuffled weights",
            "embedding_alone": "Spearman with the embedding alone",
            "expression_alone": "Spearman with expression alone",
            "separation": "separation of the states",
        }  # fmt: skip
        page.facts(facts | {text: gates.get(name) for name, text in labels.items()})


def _ranked(page: Page, table: pd.DataFrame) -> None:
    columns = ("gene", "operation", "status", "effect", "low", "high", "share_of_nulls", "p", "fdr",
               "cells", "donors")  # fmt: skip
    rows = table.loc[table["status"] != calls.NOT_RUN, list(columns)].head(RANKED)
    page.table(columns, [[_plain(v) for v in row] for row in rows.itertuples(index=False)])


def _plain(value: Any) -> Any:
    """Return a value as Python's own; a missing one as None."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def _volcano(page: Page, tested: pd.DataFrame, config: IspStats) -> None:
    """Draw effect against p, and the band that holds 95 % of the nulls' effects."""
    if tested.empty:
        return
    series, names = {}, {}
    for status, rows in tested.groupby("status"):
        size = -np.log10(rows["p"].to_numpy(float))
        series[str(status)] = (rows["effect"].tolist(), size.tolist())
        names[str(status)] = rows["gene"].astype(str).tolist()
    spread = np.quantile(tested["effect"].to_numpy(float), [0.025, 0.975])
    top = float(-np.log10(tested["p"].to_numpy(float)).max())
    grid = np.linspace(0, top, 60).tolist()
    series["95 % of genes"] = ([*[float(spread[0])] * 60, *[float(spread[1])] * 60], grid + grid)
    words = (
        "Effect is the shift minus the median of the gene's nulls, p is Student's t among them. "
        f"Between the two dotted lines lie 95 % of all genes; calls are at FDR {config.fdr:g}."
    )
    page.figure("Effect and p", svg.scatter(series, x="effect", y="-log10 p", names=names), words)


def _both(page: Page, results: list[Result], tested: pd.DataFrame) -> None:
    """Draw deletion against overexpression, over the cloud of all genes."""
    operations = {str(name): rows for name, rows in tested.groupby("operation")}
    if not {"delete", "overexpress"} <= set(operations):
        return
    del results
    down = operations["delete"].drop_duplicates("ensembl_id").set_index("ensembl_id")
    up = operations["overexpress"].drop_duplicates("ensembl_id").set_index("ensembl_id")
    shared = down.index.intersection(up.index)
    called = down.loc[shared, "status"].isin(NAMED) | up.loc[shared, "status"].isin(NAMED)
    series, names = {}, {}
    for label, chosen in (("others", shared[~called]), ("called", shared[called])):
        series[label] = (down.loc[chosen, "effect"].tolist(), up.loc[chosen, "effect"].tolist())
        names[label] = down.loc[chosen, "gene"].astype(str).tolist()
    page.figure(
        "Deletion against overexpression",
        svg.scatter(series, x="effect of deletion", y="effect of overexpression", names=names),
        "A gene that drives a state lies in the upper left or lower right: both ways it does the "
        "opposite. Genes in the other corners are INCOHERENT.",
    )


def _donors(page: Page, result: Result, tested: pd.DataFrame) -> None:
    """Draw the top genes donor by donor."""
    same = tested[tested["operation"] == result.design.operation]
    top = same.drop_duplicates("gene").head(TOP)
    names = [str(name) for name in top["gene"]]
    label = result.frame["symbol"].where(result.frame["symbol"] != "", result.frame["ensembl_id"])
    rows = result.frame.assign(label=label)[label.isin(names)]
    if not result.design.donors or rows.empty:
        return
    means = rows.pivot_table(
        index="label", columns="donor", values=result.column, aggfunc="mean", observed=True
    ).reindex([name for name in names if name in set(rows["label"])])
    page.figure(
        f"Top genes in each donor: {result.design.operation}",
        svg.heat_map(
            means.to_numpy(float).tolist(), rows=f"{len(means)} genes, the first on top",
            columns=f"{means.shape[1]} donors", legend="mean shift",
        ),
        "A shift that one donor alone has is a property of that donor.",
    )  # fmt: skip
    best = means.iloc[0].dropna()
    page.figure(
        f"{means.index[0]} by donor",
        svg.bars({str(name): float(v) for name, v in best.items()}, x="mean shift"),
    )


def _cells(page: Page, result: Result) -> None:
    """Draw the states' cells on their two main axes, and the way from the start to the goal."""
    path = result.run.path / "states.npz"
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as kept:
        cells, state = kept["cells"].astype(np.float64), kept["state"]
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    centred = units - units.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    design = result.design
    series = {}
    for number in np.unique(state):
        here = flat[state == number]
        series[design.states[int(number)]] = (here[:, 0].tolist(), here[:, 1].tolist())
    start = str((result.run.meta.get("config") or {}).get("start"))
    ends = [flat[state == design.states.index(name)].mean(0) for name in (start, design.targets[0])]
    way = np.linspace(ends[0], ends[1], 40)
    series[f"{start} to {design.targets[0]}"] = (way[:, 0].tolist(), way[:, 1].tolist())
    share = np.square(sizes[:2]).sum() / np.square(sizes).sum()
    page.figure(
        "Cells of the states", svg.scatter(series, x="first axis", y="second axis"),
        f"The two main axes hold {share:.0%} of the variance of the cells' embeddings.",
    )  # fmt: skip
