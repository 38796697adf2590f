"""The page of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.graph import Rules
from vcell.report import svg
from vcell.report.page import Page
from vcell_graph_profile.measure import DATA, MODEL
from vcell_graph_profile.tables import ratios, sizes_table, times_table

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the verdict, stacked bars, tables and the input files."""
    rows = [row for row in found["rows"] if "not_run" not in row]
    page = Page(
        "Feeding gene networks to a model",
        f"{found['genes']:,} genes, {found['edges']:,} edges in "
        f"{console.count(len(found['relations']), 'relation')}; "
        f"{found['device']}, {console.count(found['threads'], 'thread')}",
    )
    first, _, rest = found["verdict"].partition(". ")
    page.headline(first.rstrip(".") + ".", rest)
    phases = (*DATA, *MODEL)
    parts = {
        row["strategy"]: [
            row["milliseconds"].get(phase, 0.0) / found["batch_size"] for phase in phases
        ]
        for row in rows
    }
    page.figure("Where the time goes", svg.stacked(parts, phases, x="milliseconds a sample"),
                "Phases run one after another: nothing is prepared in parallel with the "
                "model.")  # fmt: skip
    shares = {
        name: [100 * value / (sum(values) or 1) for value in values]
        for name, values in parts.items()
    }
    page.figure("The same as shares", svg.stacked(shares, phases, x="percent of a sample"))
    if all(row["bytes_a_batch"] is not None for row in rows):
        sizes = {row["strategy"]: row["bytes_a_batch"] / 1e3 for row in rows}
        page.figure("Copied for a batch", svg.bars(sizes, x="kilobytes"))
    page.heading(f"Milliseconds of a batch of {found['batch_size']:,}")
    body, columns = times_table(rows)
    page.table(columns, body)
    page.text(
        "“original's it/s” is what the original report called iterations a second: its timer ran "
        "while a finished batch was copied to the device, and at no other time."
    )
    page.heading("Sizes")
    body, columns = sizes_table(rows)
    page.table(columns, body)
    page.text(
        f"The largest batch was searched by running batches within "
        f"{found['budget_bytes'] / 1e9:.2g} GB. “alike” is the mean cosine between the latents of "
        "random genes after the last layer: at 1 they all look the same (oversmoothing)."
    )
    for line in ratios(rows):
        page.text(line)
    missing = [row for row in found["rows"] if "not_run" in row]
    if missing:
        page.table(("not run", "why"), [(row["strategy"], row["not_run"]) for row in missing])
    page.heading("What was measured")
    page.table(("strategy", "what it is"), [(row["strategy"], row["what"]) for row in rows])
    rules = Rules(1, found["direction"], found["over"], found["perturbed"])
    page.facts({
        "neighbourhoods": rules.describe().partition(" ")[2].partition(" ")[2],
        "gene sets": found["sets"], "mode": found["mode"], "steps": found["steps"],
        "width and layers": f"{found['width']}, {found['layers']}",
        "references": found["references_run"], "genes without an edge": found["isolated"],
    })  # fmt: skip
    page.table(("relation", "edges"), list(found["relations"].items()), fold="Relations")
    for note in found["notes"]:
        page.text(note)
    page.write(path)
