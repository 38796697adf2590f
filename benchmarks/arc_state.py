"""Training throughput of vcell and arc-state: perturbed cells per second, same cells and device.

    python benchmarks/arc_state.py [--cells 6000] [--genes 2000] [--perturbations 60]

The peer is in ``benchmarks/.envs/arc-state`` (``pip install arc-state==0.11.1``). Each trains its
own small model with its defaults (``model=state_sm``; ``--preset tiny`` on a CPU), for a few steps
and for more; the time of a step is the difference, without start-up and validation. A step has its
sets times the cells of a set; both read as many matched controls, which are not counted. The models
differ: this measures speed, not quality.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
DATA = HERE / ".data/arc-state"
PEER = HERE / ".envs/arc-state/bin"
#: Sets per step, cells per set: arc-state's small preset, with fewer sets than its 16 on a CPU.
SETS, SET_SIZE = 4, 128
OURS_SETS, OURS_SIZE = 16, 32
NORMALISE = """
import sys, anndata as ad, numpy as np, scanpy as sc
cells = ad.read_h5ad(sys.argv[1])
sc.pp.normalize_total(cells); sc.pp.log1p(cells)
cells.X = cells.X.tocsr().astype(np.float32)
cells.obs["cell_type"] = "line"
order = np.argsort(cells.obs["target_gene"].astype(str), kind="stable")
cells[order].copy().write_h5ad(sys.argv[2])
"""


def spent(words: list[str], log: Path, **environment: str) -> tuple[float, float]:
    """Run a command; return wall and CPU seconds, including its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("wb") as sink:
        code = subprocess.run(
            words, stdout=sink, stderr=subprocess.STDOUT, env=os.environ | environment, check=False
        ).returncode
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        sys.exit(f"{' '.join(words)} failed:\n{log.read_text()[-3000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used


def prepare(args: argparse.Namespace) -> tuple[Path, Path]:
    """Write the screen: counts for vcell, log1p values sorted by perturbation for the peer."""
    DATA.mkdir(parents=True, exist_ok=True)
    counts = DATA / f"cells-{args.cells}x{args.genes}x{args.perturbations}.h5ad"
    logged = counts.with_suffix(".log1p.h5ad")
    if not logged.exists():
        words = [sys.executable, "-m", "vcell", "simulate", str(counts), "--n-cells",
                 str(args.cells), "--genes", str(args.genes), "--perturbations",
                 str(args.perturbations), "--quiet"]  # fmt: skip
        spent(words, DATA / "log")
        spent([str(PEER / "python"), "-c", NORMALISE, str(counts), str(logged)], DATA / "log")
    (DATA / "state.toml").write_text(
        f'[datasets]\nscreen = "{logged.resolve()}"\n[training]\nscreen = "train"\n'
        '[fewshot]\n[fewshot."screen.line"]\nval = ["GENE00001"]\ntest = ["GENE00002"]\n'
    )
    return counts, logged


def theirs(steps: int) -> list[str]:
    """Return arc-state's command for a number of steps."""
    data = "data.kwargs"
    return [
        str(PEER / "state"), "tx", "train", f"{data}.toml_config_path={DATA / 'state.toml'}",
        f"{data}.pert_col=target_gene", f"{data}.cell_type_key=cell_type",
        f"{data}.batch_col=batch", f"{data}.control_pert=non-targeting", f"{data}.num_workers=0",
        f"{data}.pin_memory=false", f"{data}.output_space=all", f"training.max_steps={steps}",
        f"training.batch_size={SETS}", "training.val_freq=100000",
        "training.ckpt_every_n_steps=100000", "use_wandb=false", "overwrite=true",
        "model=state_sm", f"output_dir={DATA.resolve() / 'out'}", "name=run",
    ]  # fmt: skip


def ours(counts: Path, steps: int) -> list[str]:
    """Return vcell's command for a number of steps."""
    return [
        sys.executable, "-m", "vcell", "train-vcc", str(counts), "--max-steps", str(steps),
        "--validate-every", "0", "--checkpoint-every", "0", "--batch-size", str(OURS_SETS),
        "--set-size", str(OURS_SIZE), "--quiet",
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--perturbations", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    counts, _ = prepare(args)
    entries = {
        "vcell train-vcc": (lambda n: ours(counts, n), OURS_SETS * OURS_SIZE, (50, 250)),
        "arc-state, state_sm": (theirs, SETS * SET_SIZE, (5, 25)),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    os.chdir(DATA)  # where vcell may write its runs
    for _ in range(args.repeats):
        for name, (command, cells, steps) in entries.items():
            short, long = (spent(command(n), DATA / "log", WANDB_MODE="disabled") for n in steps)
            seen = cells * (steps[1] - steps[0])
            rates[name].append((seen / (long[0] - short[0]), seen / (long[1] - short[1])))
    cores = os.cpu_count()
    print(f"{datetime.now():%Y-%m-%d}, {cores} cores, {args.cells:,} cells x {args.genes:,} genes")
    print(f"{'perturbed cells a second':<28}{'by the clock':>14}{'per CPU s':>12}")
    for name, found in rates.items():
        print(f"{name:<28}{median(r[0] for r in found):14,.0f}{median(r[1] for r in found):12,.0f}")
    a, b = (median(r[1] for r in found) for found in rates.values())
    print(f"ratio by CPU time: {a / b:.1f}")


if __name__ == "__main__":
    main()
