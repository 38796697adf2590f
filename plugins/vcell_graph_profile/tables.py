"""The measurements as tables and sentences, for the terminal and for the page."""

from __future__ import annotations

from typing import Any

from vcell import console
from vcell.graph import Rules


def text(found: dict[str, Any]) -> str:
    """Return the text for the terminal."""
    rows = [row for row in found["rows"] if "not_run" not in row]
    lines = [
        (f"milliseconds of a batch of {found['batch_size']:,}, medians of {found['steps']} "
         f"({found['device']}, {console.count(found['threads'], 'thread')})"),
        console.table(*times_table(rows)), "", console.table(*sizes_table(rows)), "",
    ]  # fmt: skip
    lines += [
        f"{row['strategy']}: not run, {row['not_run']}" for row in found["rows"] if "not_run" in row
    ]
    lines += ratios(rows)
    rules = Rules(1, found["direction"], found["over"], found["perturbed"]).describe()
    lines.append(f"neighbourhoods: {rules.partition(' ')[2].partition(' ')[2]}")
    lines += ["", found["verdict"]]
    return "\n".join(lines)


def times_table(rows: list[dict[str, Any]]) -> tuple[list[list[Any]], list[str]]:
    """Return the table of times."""
    columns = ["strategy", "sample", "collate", "copy", "forward", "backward", "it/s",
               "samples/s", "original's it/s"]  # fmt: skip
    body = []
    for row in rows:
        times = [row["milliseconds"].get(name) for name in columns[1:6]]
        rates = [row[f"{name}_a_second"] for name in ("iterations", "samples")]
        rates.append(row["original_iterations_a_second"])
        body.append([row["strategy"], *(_short(value) for value in (*times, *rates))])
    return body, columns


def sizes_table(rows: list[dict[str, Any]]) -> tuple[list[list[Any]], list[str]]:
    """Return the table of sizes."""
    columns = ["strategy", "a sample", "a batch", "shared", "peak", "largest batch", "nodes",
               "edges", "alike"]  # fmt: skip
    body = []
    for row in rows:
        size = row.get("largest_batch")
        more = "" if row.get("largest_batch_found", True) else "at least "
        body.append([
            row["strategy"], *(_bytes(row[f"bytes_a_{name}"]) for name in ("sample", "batch")),
            _bytes(row["bytes_shared"]), _bytes(row["peak_bytes"]),
            None if size is None else f"{more}{size:,}",
            *(None if row[f"{n}_a_sample"] is None else f"{row[f'{n}_a_sample']:,.0f}"
              for n in ("nodes", "edges")),
            None if row["alike"] is None else f"{row['alike']:.2f}",
        ])  # fmt: skip
    return body, columns


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Compare references with vcell's strategies."""
    lines = []
    for row in rows:
        if "data_ratio" in row:
            same = "the same genes and edges" if row["same_output"] else "OTHER genes or edges"
            lines.append(
                f"{row['strategy']}: sample and collate take {_times(row['data_ratio'])} times as "
                f"long as {row['reference_for']}'s, {same}"
            )
    return lines


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _short(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(value: float | None) -> str | None:
    return None if value is None else console.bytes_text(int(value))
