"""What each part of the network adds, on perturbations held out: a line for each flag.

    python benchmarks/ablation.py --seeds 5
    python benchmarks/ablation.py --cells cells.h5ad --features genes.npz -- --max-steps 200

Without --cells every seed simulates a screen of its own, with features that tell of the truth
through noise, so that the prior leaves something to learn. Every run is `vcell train-vcc`; what
stands after ``--`` is given to all. The network is scored twice on the same held-out
perturbations: at its last step, which says what a loss teaches, and as chosen, which says what a
user gets: mostly the prior, where the validation perturbations cannot tell a gain from chance.
Differences are to `gp` of the same run, mean and standard deviation over seeds. "no prior" starts
from the mean effect.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from vcell_train_vcc import network
from vcell_train_vcc.scores import scores
from vcell_train_vcc.split import TEST, TRAIN

from vcell import models
from vcell.cli import run as vcell
from vcell.data.simulate import Simulator
from vcell.models import Screen
from vcell.runs import Run

LINES: dict[str, list[str]] = {
    "default": [],
    "no delta loss": ["--delta-loss", "0"],
    "no retrieval loss": ["--pds-loss", "0"],
    "retrieval loss 0.5": ["--pds-loss", "0.5"],
    "no class loss": ["--beta", "0"],
    "no reconstruction loss": ["--alpha", "0"],
    "energy distance": ["--set-loss", "energy"],
    "MMD": ["--set-loss", "mmd"],
    "adaptive weights": ["--loss", "adaptive"],
    "four pseudo-cells": ["--pseudo", "4"],
    "progressive": ["--strategy", "progressive"],
    "linear attention": ["--attention", "linear"],
    "no prior": [],
    "expression features only": [],
    "shared-encoder": ["--model", "shared-encoder"],
}
SIZE: dict[str, Any] = {"cells": 4000, "genes": 500, "perturbations": 80}
SMALL = ["--preset", "tiny", "--tokens", "128", "--max-steps", "60", "--validate-every", "30"]
SMALL += ["--lr", "0.001"]
EXPRESSION = "--no-expression-features"
NOISE = 2.0  # of the features, in standard deviations of what they tell


class Last:
    """A run whose best checkpoint is said to be its last."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def checkpoint(self, which: str) -> Any:
        """Return the last, whichever is asked for."""
        return self._run.checkpoint("latest")


@contextlib.contextmanager
def without_prior() -> Iterator[None]:
    """Let networks start from the mean effect, of which a row that is left out is no part."""

    def expected(run: Run, screen: Screen) -> np.ndarray:
        learned = screen.delta[screen.rows(TRAIN)]
        found = np.tile(learned.mean(axis=0), (len(screen.delta), 1))
        found[screen.rows(TRAIN)] += (found[0] - learned) / (len(learned) - 1)
        return found

    kept = network.PRIOR, network.expected
    network.PRIOR, network.expected = "perturbed-mean", expected
    try:
        yield
    finally:
        network.PRIOR, network.expected = kept


def simulated(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write the screen of a seed and its features."""
    cells, table = folder / f"cells-{seed}.h5ad", folder / f"features-{seed}.npz"
    sim = Simulator(**SIZE, seed=seed)
    if not cells.exists():
        sim.write(cells)
    truth = sim.truth.loadings.T
    noise = np.random.default_rng([seed, 2]).normal(size=truth.shape)
    np.savez(table, genes=sim.truth.genes, features=truth + NOISE * truth.std() * noise)
    return cells, table


def measure(words: list[str], line: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train once, and return the scores of the models on what was held out."""
    command = ["train-vcc", *words, *LINES[line], "--seed", str(seed), "--runs", str(runs)]
    begun = _cpu_seconds()
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        without_prior() if line == "no prior" else contextlib.nullcontext(),
    ):
        if vcell([*command, "--quiet"]):
            raise SystemExit(f"vcell {' '.join(command)} failed")
        spent = _cpu_seconds() - begun
        run = Run.open("latest", root=runs)
        screen = Screen.load(run.path / models.SCREEN)
        rows = screen.rows(TEST)
        names, contexts = screen.names(rows)
        model = "shared-encoder" if line == "shared-encoder" else "transformer"
        asked = {"gp": ("gp", run), "last": (model, Last(run)), "chosen": (model, run)}
        found: dict[str, Any] = {
            name: scores(
                models.get(kind).load(of, screen).predict(names, contexts),  # type: ignore[arg-type]
                screen.delta[rows],
                screen.targets(names),
            )
            for name, (kind, of) in asked.items()
        }
    return {"scores": found, "cpu_seconds": spent}


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """Return a line of the table."""
    found = [one["scores"] for one in runs]

    def gain(which: str, score: str, sign: int) -> str:
        values = [sign * (one[which][score] - one["gp"][score]) for one in found]
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        return f"{np.mean(values):+.4f} ± {spread:.4f}"

    cells = [
        f"{np.mean([one['gp']['pds'] for one in found]):.3f}",
        gain("last", "pds", 1),
        gain("last", "delta_correlation", 1),
        gain("last", "mae", -1),
        gain("chosen", "pds", 1),
        f"{np.median([one['cpu_seconds'] for one in runs]):.0f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _cpu_seconds() -> float:
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measure all lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, help="a screen (default: a simulated one each seed)")
    parser.add_argument("--features", type=Path, help="its table of gene features")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lines", default=",".join(LINES), help="which, by comma")
    parser.add_argument("--output", type=Path, help="folder of the results; goes on from there")
    parser.add_argument("common", nargs="*", help=f"for every run (default: {' '.join(SMALL)})")
    arguments = parser.parse_args()
    folder = (arguments.output or Path(tempfile.mkdtemp(prefix="ablation-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = [path and path.resolve() for path in (arguments.cells, arguments.features)]
    common = arguments.common or SMALL
    print(f"{arguments.cells or SIZE}, {arguments.seeds} seeds, {' '.join(common)}\n")
    print("| line | PDS of gp | last step: PDS | correlation | MAE below | chosen: PDS | CPU s |")
    print("|---" * 7 + "|")
    with contextlib.chdir(folder):  # away from any vcell.toml
        for name in arguments.lines.split(","):
            runs = []
            for seed in range(arguments.seeds):
                kept = folder / f"{name.replace(' ', '-')}-{seed}.json"
                if not kept.exists():
                    cells, table = given if given[0] else simulated(folder, seed)
                    told = table is not None and name != "expression features only"
                    words = [
                        str(cells),
                        *common,
                        *(["--features", str(table), EXPRESSION] if told else []),
                    ]
                    kept.write_text(json.dumps(measure(words, name, seed, folder / "runs")))
                runs.append(json.loads(kept.read_text()))
            print(row(name, runs), flush=True)


if __name__ == "__main__":
    main()
