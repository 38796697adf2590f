"""Training on a GPU: step time, MFU, data wait and throughput of train-vcc.

    python benchmarks/gpu.py [--gpus 1] [--steps 60] [--presets small,base] [--output gpu.md]

Prints a table to paste into an issue, with the card's name and the versions. It simulates a screen
of the challenge's width, trains on it with the GPU defaults, and reads the run's events. It has not
been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CELLS = ["--cells", "20000", "--genes", "18080", "--perturbations", "150"]


def vcell(*words: object, cwd: Path) -> str:
    """Run vcell; return its output."""
    command = [sys.executable, "-m", "vcell", *map(str, words)]
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured(folder: Path, preset: str, words: argparse.Namespace) -> list[str]:
    """Train for some steps; return a row of the table."""
    from vcell.runs import Run

    common = ["--preset", preset, "--device", "cuda", "--gpus", words.gpus]
    vcell(
        "train-vcc", "cells.h5ad", *common, "--max-steps", words.steps,
        "--validate-every", 0, "--checkpoint-every", 0, cwd=folder,
    )  # fmt: skip
    run = Run.open("latest", root=folder / "runs")
    half = words.steps // 2  # the first half compiles and warms up
    steps = [e for e in run.events(["metric"]) if e["step"] > half]
    config = run.meta["config"]
    estimated = json.loads(
        vcell(
            "train-vcc", "--estimate", *common, "--batch-size", config["batch_size"], "--json",
            cwd=folder,
        )
    )  # fmt: skip
    rate = statistics.median(e["examples_per_s"] for e in steps)
    seconds = config["batch_size"] / rate
    pieces = -(-config["batch_size"] // (run.meta["world_size"] * estimated["sets"]))
    flops = estimated["estimate"]["flops"] * pieces
    peak = peak_of(run.meta["devices"][0])
    mfu = f"{flops / seconds / peak:.1%}" if peak else "unknown"
    wait = statistics.mean(e["data_wait"] for e in steps)
    memory = max(e.get("memory", 0) for e in steps) / 1e9
    return [
        preset, str(config["batch_size"]), f"{seconds:.3f}", f"{rate:.1f}", mfu, f"{wait:.1%}",
        f"{memory:.1f}", run.meta["precision"], str(config["compile"]),
    ]  # fmt: skip


def peak_of(name: str) -> float:
    """Return the published bf16 rate of a card, given the driver's name of it."""
    from vcell.gpu.published import SHEETS

    for key in sorted(SHEETS, key=len, reverse=True):
        if all(part in name.lower() for part in key.replace("rtx", "rtx ").split("-")):
            return SHEETS[key].peak("bf16")
    return 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", default="1")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--presets", default="small,base")
    parser.add_argument("--output", type=Path)
    words = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("this machine has no CUDA device that torch can use: vcell doctor says why")
    with TemporaryDirectory() as name:
        folder = Path(name)
        vcell("simulate", "cells.h5ad", *CELLS, cwd=folder)
        rows = [measured(folder, preset, words) for preset in words.presets.split(",")]
    head = ["preset", "sets", "s/step", "sets/s", "MFU", "data wait", "GB", "precision", "compiled"]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    card, build = torch.cuda.get_device_name(), torch.__version__
    text = f"{words.gpus} x {card}, torch {build}, CUDA {torch.version.cuda}\n\n{table}\n"
    print(text)
    if words.output:
        words.output.write_text(text)


if __name__ == "__main__":
    main()
