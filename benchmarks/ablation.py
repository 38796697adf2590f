"""What each part of the network adds, on perturbations held out: a line for each flag.

    python benchmarks/ablation.py cells.h5ad --seeds 5 -- --features genes.npz --max-steps 200

Every run is `vcell train-vcc` in a process of its own, with another split and another draw for each
seed; what stands after ``--`` is given to all. Differences are to `gp`, the prior that the network
starts from, on the same held-out perturbations of the same seed: mean and standard deviation over
the seeds, and in how many of them the difference was above 0. Results are kept as JSON beside the
table, and runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LINES: dict[str, list[str]] = {
    "default": [],
    "no delta loss": ["--delta-loss", "0"],
    "no retrieval loss": ["--pds-loss", "0"],
    "no class loss": ["--beta", "0"],
    "no reconstruction loss": ["--alpha", "0"],
    "energy distance": ["--set-loss", "energy"],
    "MMD": ["--set-loss", "mmd"],
    "adaptive weights": ["--loss", "adaptive"],
    "four pseudo-cells": ["--pseudo", "4"],
    "progressive": ["--strategy", "progressive"],
    "linear attention": ["--attention", "linear"],
    "shared-encoder": ["--model", "shared-encoder"],
}
SCORES = (("pds", 1), ("mae", -1), ("delta_correlation", 1))  # -1: less is better


def measure(cells: Path, flags: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """Train once, and return the scores of all models on what was held out."""
    words = [sys.executable, "-m", "vcell", "train-vcc", str(cells), "--seed", str(seed), "--json"]
    if "--model" not in flags:
        words += ["--model", "transformer"]
    begun = time.perf_counter()
    ran = subprocess.run(
        [*words, *flags, "--runs", str(folder / "runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"{' '.join(words + flags)}\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout)
    return {
        "held_out": result["held_out"],
        "model": result["model"],
        "seconds": time.perf_counter() - begun,
    }


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """Return a line of the table."""
    cells = []
    for score, sign in SCORES:
        gains = np.array(
            [sign * (r["held_out"][r["model"]][score] - r["held_out"]["gp"][score]) for r in runs]
        )
        spread = gains.std(ddof=1) if len(gains) > 1 else 0.0
        cells.append(f"{gains.mean():+.4f} ± {spread:.4f} ({(gains > 0).sum()}/{len(gains)})")
    seconds = np.median([r["seconds"] for r in runs])
    return f"| {name} | {' | '.join(cells)} | {seconds:.0f} |"


def main() -> None:
    """Measure all lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lines", default=",".join(LINES), help="which, by comma")
    parser.add_argument("--output", type=Path, help="folder of the results")
    arguments, common = parser.parse_known_args()
    common = [word for word in common if word != "--"]
    folder = arguments.output or Path(tempfile.mkdtemp(prefix="ablation-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{arguments.cells.name}, {arguments.seeds} seeds, {' '.join(common)}\n")
    print("| line | PDS over gp | MAE below gp | correlation over gp | s |\n|---|---|---|---|---|")
    for name in arguments.lines.split(","):
        runs = []
        for seed in range(arguments.seeds):
            kept = folder / f"{name.replace(' ', '-')}-{seed}.json"
            if not kept.exists():
                found = measure(arguments.cells, [*common, *LINES[name]], seed, folder)
                kept.write_text(json.dumps(found))
            runs.append(json.loads(kept.read_text()))
        print(row(name, runs), flush=True)


if __name__ == "__main__":
    main()
