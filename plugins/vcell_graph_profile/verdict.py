"""Recommend a strategy, with the reason, in one sentence based on the measurements."""

from __future__ import annotations

from typing import Any


def verdict(found: dict[str, Any]) -> str:
    """Return the sentence."""
    rows = [r for r in found["rows"] if "not_run" not in r and not r["reference_for"]]
    if not rows:
        return "None of vcell's own strategies was measured, so none is recommended."
    by_rate = sorted(rows, key=lambda row: -row["samples_a_second"])
    measured = "only its data were measured" if found["mode"] == "data" else "end to end"
    best = by_rate[0]
    sentence = f"Take {best['strategy']}: {_rate(best)} ({measured}), {_why(best, found)}"
    others = [row for row in by_rate[1:] if row["own_graph"] != best["own_graph"]]
    own = [row for row in by_rate if row["own_graph"]]
    if len(by_rate) > 1:
        second = by_rate[1]
        times = best["samples_a_second"] / second["samples_a_second"]
        sentence += (
            f"; {times:.1f} times {second['strategy']}, which spends most on {_most(second)}"
        )
    sentence += "."
    if others and not best["own_graph"]:
        sentence += (
            f" Where every sample must see its own graph, take {own[0]['strategy']}: "
            f"{_rate(own[0])}, {_why(own[0], found)}."
        )
    return sentence + _larger(best, by_rate, found) + _reach(rows, found)


def _larger(best: dict[str, Any], rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    """Return from which batch on it pays to encode the graphs once per step."""
    shared = next((row for row in rows if not row["own_graph"]), None)
    if not best["own_graph"] or shared is None:
        return ""
    size = shared["batch_milliseconds"] / (best["batch_milliseconds"] / found["batch_size"])
    return (
        f" A step of {shared['strategy']} takes much the same at any batch: from about "
        f"{size:,.0f} samples a batch on, expect it to be faster, and measure it with --batch-size."
    )


def _rate(row: dict[str, Any]) -> str:
    rate = row["samples_a_second"]
    return f"{rate:,.0f} samples/s" if rate >= 10 else f"{rate:.2g} samples/s"


def _why(row: dict[str, Any], found: dict[str, Any]) -> str:
    if not row["own_graph"]:
        return "because the graphs are encoded once a step and a sample is its perturbed genes"
    if row["strategy"].startswith("khop"):
        share = (row["nodes_a_sample"] or 0) / found["genes"]
        return f"because a sample is a neighbourhood of {share:.0%} of the genes"
    return "because all samples share one graph"


def _most(row: dict[str, Any]) -> str:
    name = max(row["milliseconds"], key=row["milliseconds"].__getitem__)
    phases = {"sample": "making samples", "collate": "collating", "copy": "copying",
             "forward": "the forward pass", "backward": "the backward pass"}  # fmt: skip
    return phases[name]


def _reach(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    """Return where a neighbourhood is most of the graph."""
    wide = [
        f"{row['strategy']} has {row['nodes_a_sample'] / found['genes']:.0%} of the genes"
        for row in rows
        if row["strategy"].startswith("khop")
        and row["nodes_a_sample"]
        and row["nodes_a_sample"] > found["genes"] / 2
    ]
    return f" Neighbourhoods are no longer local: {', '.join(wide)}." if wide else ""
