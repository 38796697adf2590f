"""The page of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.report import svg
from vcell.report.page import Page

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {
    "iqr": "middle half", "cells_a_second": "cells/s", "tokens_a_second": "tokens/s",
    "speed_up": "speed-up", "speed_up_cpu": "speed-up of the CPU", "copy": "copy s",
    "model": "model s", "harness": "harness s", "cpu": "CPU s", "cpu_load": "CPU load",
    "gpu_load": "GPU load", "roof_share": "share of the roof",
    "cells_a_forward": "cells a forward pass", "cosine_min": "least cosine",
    "cosine_p01": "1 % of the cosines", "cosine_mean": "mean cosine",
    "shift_spearman": "Spearman of the shifts", "shift_top": "largest tenth of shifts shared",
    "roof_gflops": "the roof, GFLOP/s", "tokenise_seconds": "seconds to tokenise",
}  # fmt: skip


def write(path: Path, facts: dict[str, Any]) -> None:
    """Write the table, what each method ran, and its quality."""
    page = Page("Running a Geneformer", f"{facts['model']} on {facts['device']}")
    rows = [dict(row) for row in facts["rows"] if "not_run" not in row]
    best = max(rows, key=lambda row: float(row["speed_up"]))
    page.headline(
        "No method was faster than the baseline"
        if best["speed_up"] <= 1
        else f"{best['method']} is {best['speed_up']:.1f} times as fast as the baseline",
        "wall clock, medians of the repeats",
    )
    if facts["synthetic"]:
        page.warnings(["The weights are random: the speeds are real, the embeddings mean nothing."])
    for row in rows:
        row["iqr"] = "{:.3g} to {:.3g}".format(*row["seconds_iqr"])
        if row.get("memory"):
            row["memory"] = console.bytes_text(row["memory"])
        if "bytes" in row:
            row["quantised"] = (
                f"{row['quantised']} layers, {row['bytes'][0]:,} to {row['bytes'][1]:,} bytes"
            )
    page.figure("Speed-up", svg.bars(
        {r["method"]: r["speed_up"] for r in rows}, x="times the baseline", reference=1.0
    ))  # fmt: skip
    page.figure("Share of the roof", svg.bars(
        {r["method"]: r["roof_share"] for r in rows}, x="share of the products a second possible"
    ))  # fmt: skip
    page.heading("Speed")
    _table(page, rows, "seconds", "iqr", "cells_a_second", "tokens_a_second", "speed_up",
           "speed_up_cpu")  # fmt: skip
    page.heading("Where the time goes")
    _table(page, rows, "copy", "model", "harness", "cpu", "cpu_load", "gpu_load", "memory",
           "roof_share", "processes")  # fmt: skip
    page.heading("What really ran")
    _table(page, rows, "what", "products", "attention", "cells_a_forward", "layers", "head",
           "quantised")  # fmt: skip
    page.heading("Embeddings and shifts")
    _table(page, rows, "cosine_min", "cosine_p01", "cosine_mean", "shift_spearman", "shift_top")
    judged = [row for row in rows if row.get("quality")]
    if judged:
        names = list(judged[0]["quality"])
        page.table(
            ("method", *names), [[r["method"], *(r["quality"][n] for n in names)] for r in judged]
        )
    missing = [row for row in facts["rows"] if "not_run" in row]
    if missing:
        page.table(("not run", "why"), [(row["method"], row["not_run"]) for row in missing])
    page.heading("What was measured")
    keys = ("cells", "tokens", "processes", "threads", "roof_gflops", "tokenise_seconds")
    page.facts({WORDS.get(name, name): facts[name] for name in keys})
    page.write(path)


def _table(page: Page, rows: list[dict[str, Any]], *columns: str) -> None:
    """Add the results of every method; empty columns are left out."""
    known = [name for name in columns if any(row.get(name) is not None for row in rows)]
    page.table(
        ("method", *(WORDS.get(name, name.replace("_", " ")) for name in known)),
        [(row["method"], *(row.get(name) for name in known)) for row in rows],
    )
