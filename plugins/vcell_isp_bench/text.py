"""The results of a benchmark as text."""

from __future__ import annotations

from typing import Any

from vcell import console


def text(facts: dict[str, Any]) -> str:
    """Return the tables of speed and of what ran, and what is to be known about them."""
    body = [_line(row) for row in facts["rows"] if "not_run" not in row]
    ran = [
        [row["method"], row["products"], row["attention"], row["cells_a_forward"], row["layers"],
         "yes" if row["head"] else "no", _quantised(row)]
        for row in facts["rows"] if "not_run" not in row
    ]  # fmt: skip
    lines = [
        console.table(body, _COLUMNS), "",
        console.table(ran, ["method", "products", "attention", "cells a forward", "layers", "head",
                            "quantised"]),
        "",
    ]  # fmt: skip
    lines += [f"{r['method']}: not run, {r['not_run']}" for r in facts["rows"] if "not_run" in r]
    lines += [
        f"{r['method']} is slower than the baseline here" for r in facts["rows"] if r.get("slower")
    ]
    if facts["tokenise_seconds"] is not None:
        lines.append(f"ranking the genes took {facts['tokenise_seconds']:.2g} s, once for all")
    lines.append(
        f"{facts['device']}; processes: {facts['processes']}, threads of each: "
        f"{facts['threads']}; "
        f"the roof is {facts['roof_gflops']:,.0f} GFLOP/s, the speed of a large product in float32"
    )
    if facts["synthetic"]:
        lines.append("random weights: the speeds are real, the embeddings mean nothing")
    return "\n".join(lines)


_COLUMNS = ("method", "seconds", "IQR", "cells/s", "speed-up", "CPU speed-up", "copy", "model",
            "harness", "cores busy", "GPU", "memory", "roof")  # fmt: skip


def _line(row: dict[str, Any]) -> list[Any]:
    """Return the columns of the table; seconds are medians of the repeats."""
    low, high = row["seconds_iqr"]
    return [
        row["method"], f"{row['seconds']:.3g}", f"{low:.3g}-{high:.3g}",
        f"{row['cells_a_second']:.3g}", f"{row['speed_up']:.2f}",
        f"{row['speed_up_cpu']:.2f}" if row["speed_up_cpu"] else None, f"{row['copy']:.2g}",
        f"{row['model']:.3g}", f"{row['harness']:.2g}", f"{row['cpu_load']:.1f}",
        None if row["gpu_load"] is None else f"{row['gpu_load']:.0f} %",
        console.bytes_text(row["memory"]), f"{row['roof_share']:.0%}",
    ]  # fmt: skip


def _quantised(row: dict[str, Any]) -> str | None:
    if "quantised" not in row:
        return None
    before, after = (console.bytes_text(n) for n in row["bytes"])
    return f"{row['quantised']} layers, {before} to {after}, {row['engine']}"
