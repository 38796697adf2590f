"""The report as one self-contained page: no script, no network, pictures as inline SVG."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.outputs import made_by
from vcell_inspect.pictures import bars, histogram, scatter
from vcell_inspect.text import describe, matrix_line

if TYPE_CHECKING:
    from vcell_inspect.survey import Survey

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --dim: #66727f; --paper: #fff; --line: #d9dfe5;
  --mark: #2a6f97; --warn: #b45309; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --dim: #9aa7b4; --paper: #14191f;
  --line: #333d47; --mark: #6db3d8; --warn: #f0a95b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
td, th { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 500; } td.n { text-align: right; }
.problems li { color: var(--warn); } .dim { color: var(--dim); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { color: var(--dim); font-size: .85rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .mark { fill: var(--mark); } svg .axis { stroke: var(--line); }
"""


def page(report: dict[str, Any], seen: Survey | None) -> str:
    """Write the page."""
    title = html.escape(str(report["name"]))
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        f'<meta name="generator" content="{made_by()}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>", _facts(report), _problems(report),
    ]  # fmt: skip
    if seen is not None and seen.n_seen:
        parts += [_heading(seen), f'<div class="pictures">{_pictures(report, seen)}</div>']
    parts += ["<h2>Columns of obs</h2>", _columns(report)]
    if report["preview"]:
        parts += ["<h2>First cells</h2>", _preview(report["preview"])]
    return "\n".join([*parts, "</body></html>"])


def _facts(report: dict[str, Any]) -> str:
    density = f", {report['density']:.2%} non-zero" if report["density"] is not None else ""
    facts = [
        ("cells x genes", f"{report['n_cells']:,} x {report['n_genes']:,}{density}"),
        ("format", report["format"]),
        ("matrix", matrix_line(report)),
        ("values", report["values"]["text"]),
        ("labels", report["labels"]["text"]),
        ("columns of var", ", ".join(report["var"]) or "none"),
    ]
    rows = "".join(f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts)
    return f"<table>{rows}</table>"


def _problems(report: dict[str, Any]) -> str:
    if not report["problems"]:
        where = "every cell" if report["full"] else "the names and the sampled cells"
        return f"<h2>Problems</h2><p>None in {where}.</p>"
    items = "".join(f"<li>{html.escape(line)}</li>" for line in report["problems"])
    return f'<h2>Problems</h2><ul class="problems">{items}</ul>'


def _heading(seen: Survey) -> str:
    cells = "All" if seen.whole else "A sample of"
    return f'<h2>Quality</h2><p class="dim">{cells} {seen.n_seen:,} cells.</p>'


def _pictures(report: dict[str, Any], seen: Survey) -> str:
    """Draw totals, genes, mitochondrial share, one against the other, largest groups and genes."""
    totals, detected, mito = (seen.per_cell(i) for i in range(3))
    figures = [
        (histogram(totals, log=True), "Sum of the values of a cell (log scale)"),
        (histogram(detected, log=False), "Genes of a cell"),
    ]
    if seen.mito_genes.any():
        figures.append((histogram(mito, log=False), "Mitochondrial share of a cell, percent"))
    figures.append((scatter(totals, detected), "Genes against sum of values (both log scale)"))
    column = report["labels"].get("perturbation_column")
    for entry in report["obs"]:
        if entry["name"] == column and "largest" in entry:
            pairs = [(top["label"], float(top["cells"])) for top in entry["largest"]]
            figures.append((bars(pairs), f"Largest groups of {column}, cells"))
    top = np.argsort(-seen.gene_sums, kind="stable")[:12]
    whole = seen.gene_sums.sum()
    if whole > 0:
        pairs = [(str(seen.genes[g]), 100 * float(seen.gene_sums[g] / whole)) for g in top]
        figures.append((bars(pairs), "Genes with the largest share of all values, percent"))
    return "".join(
        f"<figure>{svg}<figcaption>{html.escape(text)}</figcaption></figure>"
        for svg, text in figures
    )


def _columns(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(entry['name'])}</td><td>{entry['kind']}</td>"
        f"<td>{html.escape(describe(entry))}</td></tr>"
        for entry in report["obs"]
    )
    return f"<table><tr><th>column</th><th>kind</th><th>holds</th></tr>{rows}</table>"


def _preview(preview: dict[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(gene)}</th>" for gene in preview["genes"])
    rows = "".join(
        f"<tr><td>{html.escape(cell)}</td>"
        + "".join(f'<td class="n">{value:g}</td>' for value in values)
        + "</tr>"
        for cell, values in zip(preview["cells"], preview["values"], strict=True)
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{rows}</table></div>'
