"""The page of a screen: the ranking, its distance from the nulls, and agreement with a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.as_json import none_if_nan
from vcell.report import svg
from vcell.report.page import Page
from vcell_isp import genes as calls
from vcell_isp.gates import close, separation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from vcell_isp import IspStats
    from vcell_isp.agreement import Answer
    from vcell_isp.stats import FinishedRun

RANKED, TOP, MOST = 40, 20, 24
FIRST = 5  # genes of a status that the headline names
MEANINGS = {
    calls.TOWARD: "moves cells towards the goal: FDR and rank p are below the level, and the "
    "interval excludes 0",
    calls.AWAY: "the same, away from the goal",
    calls.MOVES: "the same, where there is no goal",
    calls.DELETION_ONLY: "deletion is significant, overexpression of the same gene is not",
    calls.INCOHERENT: "deletion and overexpression move cells in the same direction",
    calls.OPEN: "tested, not significant",
}
WORDS = {"share_of_nulls": "nulls as far", "donor_median": "median of donors",
         "cell_mean": "mean of cells"}  # fmt: skip
NAMED = (calls.TOWARD, calls.AWAY, calls.MOVES, calls.DELETION_ONLY, calls.INCOHERENT)


def write(
    path: Path,
    results: list[FinishedRun],
    table: pd.DataFrame,
    config: IspStats,
    answers: Mapping[str, Sequence[Answer]],
) -> None:
    """Write the page next to the table."""
    nulls = table[table["status"] == calls.NULL]
    table = table[table["status"] != calls.NULL]
    first = results[0]
    targets = first.design.targets
    goal = f"towards {targets[0]}" if targets else "away from the original cell"
    page = Page("In-silico perturbation", f"{', '.join(r.run.name for r in results)}: {goal}")
    _head(page, results, table, config)
    tested = table[np.isfinite(table["effect"].to_numpy(float))]
    _volcano(page, tested, config)
    _both(page, tested, nulls)
    for result in results:
        _by(page, result, tested, "cell_type", "cell type")
        _by(page, result, tested, "donor", "donor")
    _cells(page, first)
    if len(tested):
        page.heading("Genes")
        _ranked(page, table)
    _screen(page, answers)
    reasons = table.loc[table["status"] == calls.NOT_RUN, "why"].value_counts().head(12)
    if len(reasons):
        page.heading("Not tested")
        page.text("These genes were not tested. That is not the same as having no effect.")
        page.table(("why", "genes"), [(str(why), int(n)) for why, n in reasons.items()])
    _runs(page, results)
    page.write(path)


def _head(page: Page, results: list[FinishedRun], table: pd.DataFrame, config: IspStats) -> None:
    named = table[table["status"].isin(NAMED)]
    called = len(named)
    tested = int((table["status"] != calls.NOT_RUN).sum())
    without = console.count(int((table["status"] == calls.NOT_RUN).sum()), "gene")
    if tested:
        page.headline(
            f"{called:,} of {console.count(tested, 'tested perturbation')} "
            f"{'stands' if called == 1 else 'stand'} out at an FDR of {config.fdr:g}",
            (f"{_strongest(named)}; " if called else "") + f"not tested: {without}",
        )
    else:
        page.headline("No gene could be tested", f"not tested: {without}; the reasons are below")
    warnings = []
    for result in results:
        summary = result.run.meta.get("summary") or {}
        if summary.get("synthetic"):
            warnings.append("The weights are random: nothing here says anything about biology.")
        found = summary.get("gates")
        if found:
            warnings += found["problems"]
        else:
            warnings += [
                "This run was not checked: --no-gates.",
                *close(separation(result.run.path)),
            ]
    if warnings:
        page.warnings(dict.fromkeys(warnings))


def _strongest(named: pd.DataFrame) -> str:
    """Name the first genes of every status."""
    parts = []
    for status, rows in named.groupby("status", sort=False):
        genes = rows["gene"].astype(str).drop_duplicates()
        more = ", ..." if len(genes) > FIRST else ""
        parts.append(f"{status}: {', '.join(genes.head(FIRST))}{more}")
    return "; ".join(parts)


def _runs(page: Page, results: list[FinishedRun]) -> None:
    """List the settings and checks of the runs, with a column for each run."""
    summaries = [result.run.meta.get("summary") or {} for result in results]
    gates = [summary.get("gates") or {} for summary in summaries]
    labels = {
        "no_op": "a copy that changes nothing", "noise_floor": "noise floor",
        "spearman_exact": "Spearman with exact float32",
        "shuffled_weights": "Spearman with shuffled weights",
        "embedding_alone": "Spearman with the embedding alone",
        "expression_alone": "Spearman with expression alone",
        "separation": "separation of the states",
    }  # fmt: skip
    rows: list[tuple[Any, ...]] = [("run", *(result.run.name for result in results))]
    facts = ("model", "operation", "cells", "events")
    rows += [(name, *(summary.get(name) for summary in summaries)) for name in facts]
    for name, text in labels.items():
        if any(name in gate for gate in gates):
            rows.append((text, *(gate.get(name) for gate in gates)))
    page.heading("What was run")
    page.table(("",) * (1 + len(results)), rows)


def _ranked(page: Page, table: pd.DataFrame) -> None:
    # the interval is that of the donors' median or the cells' mean, so it precedes the effect
    means = [name for name in ("donor_median", "cell_mean") if name in table]
    columns = ("gene", "operation", "status", "effect", *means, "low", "high", "share_of_nulls",
               "p", "fdr", "cells", "donors")  # fmt: skip
    rows = table.loc[table["status"] != calls.NOT_RUN, list(columns)].head(RANKED)
    page.table(
        [WORDS.get(name, name) for name in columns],
        [[_plain(v) for v in row] for row in rows.itertuples(index=False)],
    )
    shown = [status for status in MEANINGS if (rows["status"] == status).any()]
    page.table(("status", "meaning"), [(status, MEANINGS[status]) for status in shown])


def _plain(value: Any) -> Any:
    """Return a value as a plain Python type; a missing one as None."""
    if hasattr(value, "item"):
        value = value.item()
    return none_if_nan(value)


def _volcano(page: Page, tested: pd.DataFrame, config: IspStats) -> None:
    """Plot effect against p, and the band with 95 % of the nulls."""
    if tested.empty:
        return
    series, names = {}, {}
    found = dict(list(tested.groupby("status")))
    for status in sorted(found, key=lambda name: (name != calls.OPEN, name)):  # calls lie on top
        rows = found[status]
        size = -np.log10(rows["p"].to_numpy(float))
        series[str(status)] = (rows["effect"].tolist(), size.tolist())
        names[str(status)] = rows["gene"].astype(str).tolist()
    spread = tested["spread_of_nulls"].to_numpy(float)
    wide = 1.96 * float(np.median(spread[np.isfinite(spread)])) if np.isfinite(spread).any() else 0
    caption = (
        "Effect is the shift minus the median of the gene's nulls, p is Student's t among them. "
        f"95 % of nulls lie in the band, ±{wide:.2g} (1.96 spreads of a typical gene's nulls); "
        f"calls are at FDR {config.fdr:g}."
    )
    picture = svg.volcano(series, x="effect", names=names, band=(-wide, wide))
    page.figure("Effect and p", picture, caption)


def _both(page: Page, tested: pd.DataFrame, nulls: pd.DataFrame) -> None:
    """Plot deletion against overexpression, over the nulls."""
    down, up = _operation(tested, "delete"), _operation(tested, "overexpress")
    shared = down.index.intersection(up.index)
    if not len(shared):
        return
    called = down.loc[shared, "status"].isin(NAMED) | up.loc[shared, "status"].isin(NAMED)
    kinds = {"not called": (down, up, shared[~called]), "called": (down, up, shared[called])}
    null_down, null_up = _operation(nulls, "delete"), _operation(nulls, "overexpress")
    cloud = null_down.index.intersection(null_up.index)
    if len(cloud):
        kinds = {"matched nulls": (null_down, null_up, cloud), **kinds}
    series, names = {}, {}
    for label, (deleted, overexpressed, genes) in kinds.items():
        series[label] = (
            deleted.loc[genes, "effect"].tolist(),
            overexpressed.loc[genes, "effect"].tolist(),
        )
        names[label] = deleted.loc[genes, "gene"].astype(str).tolist()
    page.figure(
        "Deletion against overexpression",
        svg.scatter(
            series,
            x="effect of deletion",
            y="effect of overexpression",
            equal=True,
            names=names,
            labels=6,
        ),
        "A gene that drives a state lies in the upper left or lower right: deletion and "
        "overexpression have opposite effects. Significant genes in the other corners are "
        "INCOHERENT. "
        + ("" if len(cloud) else "Without --controls, the nulls are all genes not significant."),
    )


def _operation(table: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = table[table["operation"] == name]
    return rows.drop_duplicates("ensembl_id").set_index("ensembl_id")


def _by(page: Page, result: FinishedRun, tested: pd.DataFrame, column: str, word: str) -> None:
    """Plot the mean shift of the top genes in each donor or cell type."""
    operation = result.design.operation
    top = tested[tested["operation"] == operation].drop_duplicates("ensembl_id").head(TOP)
    frame = result.frame
    if column not in frame.columns or frame[column].isna().all() or top.empty:
        return
    rows = frame[frame["ensembl_id"].isin(top["ensembl_id"])].dropna(subset=[column])
    found = rows.groupby(["ensembl_id", column], observed=True)[result.column].agg(["mean", "size"])
    kinds = sorted({str(name) for name in rows[column]})[:MOST]
    values: dict[str, list[float]] = {}
    labels: dict[str, list[str]] = {}
    for line in top.itertuples():
        cells = [found.loc[(line.ensembl_id, k)] if (line.ensembl_id, k) in found.index else None
                 for k in kinds]  # fmt: skip
        values[str(line.gene)] = [np.nan if c is None else float(c["mean"]) for c in cells]
        labels[str(line.gene)] = [
            "" if c is None else f", {console.count(int(c['size']), 'cell')}" for c in cells
        ]
    more = rows[column].nunique() - len(kinds)
    caption = {
        "donor": "A shift in only one donor is a property of that donor.",
        "cell_type": "The mean shift over the cells of each type in which the gene was perturbed.",
    }[column]
    page.figure(
        f"Top genes by {word}: {operation}",
        svg.named_heat_map(values, kinds, legend="mean shift", hover=labels),
        caption + (f" Not drawn: {more:,} more." if more > 0 else ""),
    )


def _cells(page: Page, result: FinishedRun) -> None:
    """Plot the cells of the states on two main axes, and the direction from start to goal."""
    path = result.run.path / "states.npz"
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as arrays:
        cells, state = arrays["cells"].astype(np.float64), arrays["state"]
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    centred = units - units.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(centred), 2))
    flat[:, : len(axes[:2])] = centred @ axes[:2].T
    design = result.design
    series = {}
    for number in np.unique(state):
        here = flat[state == number]
        series[design.states[int(number)]] = (here[:, 0].tolist(), here[:, 1].tolist())
    start = str((result.run.meta.get("config") or {}).get("start"))
    ends = [flat[state == design.states.index(name)].mean(0) for name in (start, design.targets[0])]
    arrow = ((float(ends[0][0]), float(ends[0][1])), (float(ends[1][0]), float(ends[1][1])))
    share = np.square(sizes[:2]).sum() / (np.square(sizes).sum() or 1.0)
    distance = separation(result.run.path)
    page.figure(
        "Cells of the states",
        svg.scatter(series, x="first axis", y="second axis", equal=True, arrow=arrow),
        f"The arrow goes from the mean of {start} to that of {design.targets[0]}. The two main "
        f"axes hold {share:.0%} of the variance of the cells' embeddings. "
        + (f"Separation of the states (between over within): {distance:.2g}." if distance else ""),
    )


def _screen(page: Page, answers: Mapping[str, Sequence[Answer]]) -> None:
    """Plot the shifts against the effects measured in a real screen."""
    if not any(answers.values()):
        return
    page.heading("Agreement with a perturbation screen")
    axes = {
        "size": ("distance in the model", "measured effect, squared"),
        "direction": ("shift towards the goal", "measured effect towards the goal"),
    }
    for run, many in answers.items():
        for answer in many:
            page.text(f"{run}: {answer.text()}")
    for many in answers.values():
        for answer in many:
            x, y = axes[answer.question]
            points = {"": (answer.shift.tolist(), answer.measured.tolist())}
            picture = svg.scatter(points, x=x, y=y, names={"": answer.genes})
            page.figure(f"Model and screen: {answer.question}", picture, answer.verdict)
