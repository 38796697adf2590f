"""The cost of a report: CPU seconds and size for one run of many steps, and for several runs.

python benchmarks/report.py [--steps 100000] [--runs 8]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def _line(event: dict[str, object]) -> str:
    return json.dumps(event, separators=(",", ":"))  # as in a run's log


def write(folder: Path, name: str, steps: int) -> None:
    """Write a finished run with eight curves, a validation every hundred steps and all spans."""
    from vcell.runs import Run

    run = Run.create(folder, "train-vcc", name=name, config={"lr": 1e-3}, monitor="pds")
    lines, spans = [], []
    for step in range(1, steps + 1):
        loss = 2 * math.exp(-3 * step / steps) + 0.1 * math.sin(step)
        event = {"t": 1.8e9 + step / 10, "kind": "metric", "step": step, "loss": loss}
        event |= {f"part_{i}": loss / (i + 2) for i in range(4)}
        event |= {"lr": 1e-3, "grad_norm": 1 + math.cos(step), "examples_per_s": 640.0}
        lines.append(_line(event | {"data_wait": 0.01, "examples": 64 * step}))
        if step % 100 == 0:
            score = {"pds": 1 - math.exp(-step / steps), "mae": 0.05, "best": True}
            lines.append(_line({"t": 1.8e9, "kind": "eval", "step": step} | score))
        span = {"t": 1.8e9, "kind": "span", "step": step, "examples": 64, "seconds": 0.1}
        spans.append(_line(span | {"data": 0.01, "forward": 0.03, "backward": 0.05}))
    (run.path / "events.jsonl").write_text("\n".join(lines) + "\n")
    (run.path / "rank-0.jsonl").write_text("\n".join(spans) + "\n")
    run.finish("done")


def main() -> None:
    """Print one line for each report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(asked.runs):
            write(folder / "runs", f"run-{i}", asked.steps)
        for n in (1, asked.runs):
            names = [f"run-{i}" for i in range(n)]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            page = folder / f"{n}.html"
            words = ["report", *names, "--runs", str(folder / "runs"), "-o", str(page)]
            subprocess.run(
                [sys.executable, "-m", "vcell", *words], check=True, stdout=subprocess.DEVNULL
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            size = page.stat().st_size / 1000
            print(
                f"{n} runs of {asked.steps:,} steps: {spent:.1f} CPU s, {size:.0f} KB",
                file=sys.stdout,
            )


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "100")
    main()
