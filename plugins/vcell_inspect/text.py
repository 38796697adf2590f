"""The report as text for a terminal."""

from __future__ import annotations

from typing import Any

from vcell import console
from vcell.report.table import words

Report = dict[str, Any]


def as_text(report: Report) -> str:
    """Format the report."""
    parts = ["\n".join(_head(report)), _columns(report)]
    if report["qc"]:
        parts.append(_quality(report))
    if report["preview"]:
        preview = report["preview"]
        rows = [[c, *v] for c, v in zip(preview["cells"], preview["values"], strict=True)]
        parts.append(console.table(rows, ["", *preview["genes"]]))
    problems = [f"  ! {line}" for line in report["problems"]]
    seen = "every cell" if report["full"] else "the names and the sampled cells"
    parts.append("\n".join(["problems:", *problems] if problems else [f"no problems in {seen}"]))
    return "\n\n".join(part for part in parts if part)


def _head(report: Report) -> list[str]:
    density = f", {report['density']:.2%} non-zero" if report["density"] is not None else ""
    lines = [
        f"{report['name']} ({report['format']})",
        f"  cells x genes   {report['n_cells']:,} x {report['n_genes']:,}{density}",
        f"  matrix          {matrix_line(report)}",
        f"  values          {report['values']['text']}",
        f"  labels          {report['labels']['text']}",
    ]
    if not report["labels"]["found"] and report["labels"]["hint"]:
        lines.append(f"                  hint: {report['labels']['hint']}")
    others = [f"layer {name}" for name in report["layers"]] + (["raw"] if report["raw"] else [])
    others += [f"obsm {name}" for name in report["obsm"]]
    if others:
        lines.append(f"  also            {', '.join(others)}")
    return lines


def matrix_line(report: Report) -> str:
    """Describe in a line how the matrix is stored."""
    parts = [report["layer"], report["stored"], report["dtype"]]
    if report["index_dtype"]:
        parts.append(f"with {report['index_dtype']} indices")
    chunk = report["chunk"]
    parts.append(
        f"in chunks of {' x '.join(f'{n:,}' for n in chunk)}," if chunk else "in one piece,"
    )
    parts.append(f"compression {report['compression']}")
    if report["nnz"] is not None:
        parts[-1] += f", {console.human(report['nnz'])} stored values"
    if report["matrix_bytes"]:
        parts[-1] += f", {console.bytes_text(report['matrix_bytes'])}"
    return " ".join(parts)


def _columns(report: Report) -> str:
    """List the columns of obs."""
    rows = [[entry["name"], entry["kind"], describe(entry)] for entry in report["obs"]]
    table = console.table(rows, ["obs column", "kind", "holds"]) if rows else "no obs columns"
    return f"{table}\n\nvar columns: {', '.join(report['var']) or 'none'}"


def describe(entry: Report) -> str:
    """Describe a column in a line."""
    missing = f"; {entry['missing']:,} missing" if entry.get("missing") else ""
    if "note" in entry:
        return str(entry["note"])
    if "range" in entry:
        span = entry["range"]
        return (f"{words(span[0])} to {words(span[1])}" if span else "nothing") + missing
    shown = [f"{top['label']} {top['cells']:,}" for top in entry["largest"][:4]]
    more = ", ..." if entry["n_categories"] > len(shown) else ""
    unused = f"; {entry['unused_categories']:,} unused" if entry["unused_categories"] else ""
    return f"{entry['n_categories']:,}: {', '.join(shown)}{more}{missing}{unused}"


def _quality(report: Report) -> str:
    """Describe the quality of the cells."""
    qc = report["qc"]
    seen = "all cells" if report["full"] else f"{qc['cells_seen']:,} sampled cells"
    linear = report["values"]["kind"] in ("counts", "normalised")  # only these have useful sums
    facts = [f"{console.human(qc[key])} {label}" for key, label in (
        ("median_total", "summed values"), ("median_genes", "genes"),
    ) if qc[key] is not None and (linear or key == "median_genes")]  # fmt: skip
    if qc["median_mito_percent"] is not None and linear:
        facts.append(
            f"{qc['median_mito_percent']:.1f} % mitochondrial ({qc['mito_genes']} MT- genes)"
        )
    return f"median of {seen}: {', '.join(facts)}"
