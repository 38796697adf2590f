"""The report as a page: facts, problems, quality of the cells, columns, first cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.report import Page, axes, frame, svg
from vcell_inspect.embeddings import telling
from vcell_inspect.text import describe, matrix_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_inspect.embeddings import Projection
    from vcell_inspect.survey import Survey

_BINS = 48  # on each axis of the plot of genes against sums


def page(
    report: dict[str, Any], seen: Survey | None, embeddings: Sequence[Projection] = ()
) -> Page:
    """Build the page."""
    whole = str(report["name"])
    name = whole.rstrip("/").rpartition("/")[2] or whole
    made = Page(name, "vcell inspect" if name == whole else f"vcell inspect {whole}")
    wrong = len(report["problems"])
    sizes = (
        f"{console.count(report['n_cells'], 'cell')}, {console.count(report['n_genes'], 'gene')}"
    )
    made.headline(
        f"{sizes}: {console.count(wrong, 'problem') if wrong else 'no problem'} found",
        report["labels"]["text"],
        "bad" if wrong else "plain",
    )
    made.facts(_facts(report))
    made.heading("Problems")
    if report["problems"]:
        made.warnings(report["problems"])
    else:
        where = "every cell" if report["full"] else "the names and the sampled cells"
        made.text(f"None in {where}.")
    if seen is not None and seen.n_seen:
        made.heading("Quality")
        cells = console.count(seen.n_seen, "cell")
        made.text(f"The whole file: {cells}." if seen.whole else f"A sample of {cells}.")
        _cells(made, seen)
        _groups(made, report)
        _genes(made, seen)
    if embeddings:
        made.heading("Stored embeddings")
    for one in embeddings:
        made.figure(one.name, one.draw(), one.caption)
    made.heading("Columns of obs")
    rows = [(entry["name"], entry["kind"], describe(entry)) for entry in report["obs"]]
    if rows:
        made.table(("column", "kind", "holds"), rows)
    else:
        made.text("None.")
    if report["preview"]:
        made.heading("First cells")
        preview = report["preview"]
        lines = zip(preview["cells"], preview["values"], strict=True)
        made.table(("", *preview["genes"]), [(cell, *values) for cell, values in lines])
    return made


def _facts(report: dict[str, Any]) -> dict[str, str]:
    density = f", {report['density']:.2%} non-zero" if report["density"] is not None else ""
    return {
        "cells x genes": f"{report['n_cells']:,} x {report['n_genes']:,}{density}",
        "format": report["format"],
        "matrix": matrix_line(report),
        "values": report["values"]["text"],
        "columns of var": ", ".join(report["var"]) or "none",
    }


def _cells(made: Page, seen: Survey) -> None:
    """Plot sums, genes and mitochondrial share of the cells, and sums against genes."""
    totals, detected, mito = (seen.per_cell(i) for i in range(3))
    sums = "negative" not in seen.odd  # of centred values, sums and shares mean nothing
    if not sums:
        made.text("Some values are negative, so sums and shares mean nothing and are not drawn.")
    else:
        made.figure(
            "Sum of the values of a cell",
            svg.histogram(totals.tolist(), x="sum of values", y="cells", log=True),
        )
    made.figure("Genes of a cell", svg.histogram(detected.tolist(), x="genes", y="cells"))
    if sums and seen.mito_genes.any():
        picture = svg.histogram(mito.tolist(), x="percent", y="cells")
        made.figure("Mitochondrial share of a cell", picture)
    if sums:
        made.figure("Genes against sum of values", _density(totals, detected))


def _density(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Plot two values of each cell against each other, on log axes if they vary widely."""
    keep = (x > 0) & (y > 0)
    if not keep.any():
        return frame.empty("nothing to show: no cell has a value above 0")
    x, y = x[keep], y[keep]
    across, n_across = _axis(x, frame.LEFT, frame.WIDTH - frame.RIGHT, 45)
    up, n_up = _axis(y, frame.HEIGHT - frame.BOTTOM, frame.TOP, 25)
    scaled = [np.log10(v) if axis.log else v for axis, v in ((up, y), (across, x))]
    ends = [
        np.log10([axis.low, axis.high]) if axis.log else (axis.low, axis.high)
        for axis in (up, across)
    ]
    counts, _, _ = np.histogram2d(scaled[0], scaled[1], (n_up, n_across), ends)
    return svg.density(counts.tolist(), across, up, x="sum of values", y="genes")


def _axis(
    values: NDArray[np.float64], start: float, end: float, spacing: float
) -> tuple[axes.Axis, int]:
    """Return an axis and a number of bins; whole numbers of like size have a bin each."""
    ends = float(values.min()), float(values.max())
    whole = bool((values == np.round(values)).all())
    axis = axes.by_size(ends, start, end, spacing=spacing, whole=whole)
    if axis.log or not whole or axis.high - axis.low >= _BINS:
        return axis, _BINS
    return replace(axis, low=axis.low - 0.5, high=axis.high + 0.5), round(axis.high - axis.low) + 1


def _groups(made: Page, report: dict[str, Any]) -> None:
    """Plot the largest perturbations, or else the largest cell types or other groups."""
    labels = report["labels"]
    column = labels.get("perturbation_column") or labels.get("cell_type_column")
    column = column or telling(report)
    for entry in report["obs"]:
        if entry["name"] == column and "largest" in entry:
            sizes = {top["label"]: float(top["cells"]) for top in entry["largest"]}
            made.figure(f"Largest groups of {column}", svg.bars(sizes, x="cells"))


def _genes(made: Page, seen: Survey) -> None:
    total = seen.gene_sums.sum()
    if not np.isfinite(total) or total <= 0 or "negative" in seen.odd:
        return
    top = np.argsort(-seen.gene_sums, kind="stable")[:12]
    shares = {str(seen.genes[g]): 100 * float(seen.gene_sums[g] / total) for g in top}
    made.figure("Genes with the largest share of all values", svg.bars(shares, x="percent"))
