"""The contribution of each part of the network, on held-out perturbations.

    python benchmarks/ablation.py --output ablation --seeds 0-4
    python benchmarks/ablation.py --cells cells.h5ad --features genes.npz -- --max-steps 200

Without --cells every seed simulates its own screen, with features that contain the truth and noise.
Every run is `vcell train-vcc`; arguments after ``--`` go to all of them. Each row is measured from
two starts: the prior (`gp`), as in normal use, and the mean effect, which leaves more to learn, so
that losses can be told apart. Networks are scored at their last step, over the genes that they see.
"gain" is the challenge's, of PDS and MAE over the mean effect. The first row of a table is what the
network adds to the start; the others are differences from the first row at the same seed: mean and
standard deviation over seeds, with a star for p < 0.05 (Student's t, two-sided; of twenty rows
without an effect, one would have a star).
Results are saved in --output, one file per run, and not measured again, so that --seeds, --starts
and --lines can be measured piece by piece.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from vcell_train_vcc.closed import gp
from vcell_train_vcc.network import model as network
from vcell_train_vcc.network.shape import NetworkShape

from vcell import models
from vcell.cli import run as vcell
from vcell.data.simulate import Simulator
from vcell.models import Screen, held_out
from vcell.models.scoring import gain, scores
from vcell.runs import Run
from vcell.screen.split import TEST, TRAIN

LOSSES: dict[str, list[str]] = {
    "default": [],
    "adaptive": ["--loss", "adaptive"],
    "adaptive with equal weights": ["--loss", "adaptive", "--beta", "1", "--pds-loss", "1"],
    "no reconstruction loss": ["--alpha", "0"],
    "no class loss": ["--beta", "0"],
    "class loss 0.1": ["--beta", "0.1"],
    "no delta loss": ["--delta-loss", "0"],
    "no retrieval loss": ["--pds-loss", "0"],
    "retrieval loss 0.3": ["--pds-loss", "0.3"],
    "energy distance": ["--set-loss", "energy"],
    "MMD": ["--set-loss", "mmd"],
}
LINES = LOSSES | {
    "shared-encoder": ["--model", "shared-encoder"],
    "four pseudo-cells": ["--pseudo", "4"],
    "progressive": ["--strategy", "progressive", "--phase-genes", "8,16,24,32"],
    "linear attention": ["--attention", "linear"],
    "expression features only": [],
}
STARTS = {"prior": "gp", "mean": "perturbed-mean"}
SIZE: dict[str, Any] = {"cells": 20_000, "genes": 1500, "perturbations": 360}
SMALL = ["--preset", "tiny", "--tokens", "32", "--max-steps", "500", "--validate-every", "0"]
SMALL += ["--lr", "0.003", "--test-share", "0.3", "--validation-share", "0.05"]
EXPRESSION = "--no-expression-features"
NOISE = 1.0  # of the features, in standard deviations of their signal
SCORES = {"gain": 1, "pds": 1, "delta_correlation": 1, "mae": -1}  # -1: lower is better


class Last:
    """A run that gives its last checkpoint as its best."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def checkpoint(self, which: str) -> Any:
        """Return the last checkpoint, whichever is requested."""
        return self._run.checkpoint("latest")


@contextlib.contextmanager
def from_mean() -> Iterator[None]:
    """Let networks start from the mean effect, without the row that is left out."""

    def expected(run: Run, screen: Screen) -> np.ndarray:
        learned = screen.delta[screen.rows(TRAIN)]
        found = np.tile(learned.mean(axis=0), (len(screen.delta), 1))
        found[screen.rows(TRAIN)] += (found[0] - learned) / (len(learned) - 1)
        return found

    kept = network.PRIOR, network.expected
    network.PRIOR, network.expected = STARTS["mean"], expected
    try:
        yield
    finally:
        network.PRIOR, network.expected = kept


class Solved:
    """Gaussian processes, each solved once and shared by the rows of a seed."""

    def __init__(self) -> None:
        self.solve, self.key, self.seconds = gp.GaussianProcess, "", 0.0

    def __call__(self, screen: Screen, run: Run | None = None) -> gp.GaussianProcess:
        """Solve it, unless the screen is that of the last call."""
        parts = (screen.delta, screen.part, screen.features)
        key = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
        if key != self.key:
            begun = cpu_seconds()
            self.key, self.found = key, self.solve(screen)
            self.seconds += cpu_seconds() - begun
        return self.found


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


def measure(words: list[str], line: str, start: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train once, and return the scores of the models on held-out perturbations."""
    command = ["train-vcc", *words, *LINES[line], "--seed", str(seed), "--runs", str(runs)]
    begun, solving = cpu_seconds(), gp.GaussianProcess.seconds
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        from_mean() if start == "mean" else contextlib.nullcontext(),
    ):
        if vcell([*command, "--quiet"]):
            raise SystemExit(f"vcell {' '.join(command)} failed")
        spent = cpu_seconds() - begun - (gp.GaussianProcess.seconds - solving)
        run = Run.open("latest", root=runs)
        screen = Screen.load(run.path / models.SCREEN)
        model = "shared-encoder" if line == "shared-encoder" else "transformer"
        asked = {
            "mean": (STARTS["mean"], run),
            "start": (STARTS[start], run),
            "last": (model, Last(run)),
            "chosen": (model, run),
            "either": (model, run),
        }
        found = {
            name: scored(screen, run, kind, of, whole=name == "either")
            for name, (kind, of) in asked.items()
        }
        for one in found.values():
            one["gain"] = gain(one, found["mean"])
    return {"scores": found, "cpu_seconds": spent}


def scored(screen: Screen, run: Run, kind: str, of: Any, *, whole: bool) -> dict[str, float]:
    """Score a model on held-out perturbations, over the genes that are tokens.

    With `whole`, the residual of a network with a share above 0 is added in full, as in older
    versions.
    """
    rows = screen.rows(TEST)
    names, contexts = screen.names(rows)
    place = {str(gene): i for i, gene in enumerate(screen.genes)}
    seen = np.array([place[gene] for gene in NetworkShape.of(run).tokens])
    model = models.get(kind).load(of, screen)
    if isinstance(of, Last) and hasattr(model, "blend"):
        model.blend = 1.0  # without the factor that shrinks the residual
    elif whole and hasattr(model, "blend"):
        model.blend = float(model.blend > 0)
    told = model.predict(names, contexts)
    column = np.full(len(screen.genes) + 1, -1)
    column[seen] = np.arange(len(seen))
    return scores(told[:, seen], screen.delta[rows][:, seen], column[screen.targets(names)])


def row(name: str, runs: list[dict[str, Any]], first: list[dict[str, Any]]) -> str:
    """Return a row of the table: the difference from the first row, or its own from its start."""

    def more(which: str, score: str, sign: int) -> str:
        base = [one["scores"]["start" if runs is first else which][score] for one in first]
        values = [
            sign * (one["scores"][which][score] - was) for one, was in zip(runs, base, strict=True)
        ]
        if len(values) < 2:
            return f"{values[0]:+.4f}"
        spread = float(np.std(values, ddof=1))
        sure = stats.t.ppf(0.975, len(values) - 1) * spread / np.sqrt(len(values))
        return f"{np.mean(values):+.4f} ± {spread:.4f}{' *' if abs(np.mean(values)) > sure else ''}"

    cells = [more("last", score, sign) for score, sign in SCORES.items()]
    cells += [more("chosen", "gain", 1), more("either", "gain", 1)]
    cells.append(f"{np.median([one['cpu_seconds'] for one in runs]):.0f}")
    return f"| {name} | {' | '.join(cells)} |"


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its children."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def pieces(
    arguments: argparse.Namespace, folder: Path, common: list[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield start, row and result, measured or saved, seed by seed."""
    given = [path and path.resolve() for path in (arguments.cells, arguments.features)]
    runs = itertools.product(arguments.seeds, arguments.starts, arguments.lines)
    for seed, start, line in runs:
        kept = folder / f"{start}-{line.replace(' ', '-')}-{seed}.json"
        if not kept.exists():
            cells, table = given if given[0] else simulated(folder, seed)
            told = table is not None and line != "expression features only"
            features = ["--features", str(table), EXPRESSION] if told else []
            words = [str(cells), *common, *features]
            kept.write_text(json.dumps(measure(words, line, start, seed, folder / "runs")))
        yield start, line, json.loads(kept.read_text())


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, help="a screen (default: a simulated one each seed)")
    parser.add_argument("--features", type=Path, help="its table of gene features")
    parser.add_argument("--seeds", type=_numbers, default=range(5), help="from-to (default: 0-4)")
    parser.add_argument(
        "--lines",
        type=_words,
        default=[*LOSSES],
        help=f"which, by comma, the first to compare with: {', '.join(LINES)} (default: losses)",
    )
    parser.add_argument("--starts", type=_words, default=[*STARTS], help="which, by comma")
    parser.add_argument("--output", type=Path, help="folder of the results; goes on from there")
    parser.add_argument("common", nargs="*", help=f"for every run (default: {' '.join(SMALL)})")
    arguments = parser.parse_args()
    folder = (arguments.output or Path(tempfile.mkdtemp(prefix="ablation-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    common = arguments.common or SMALL
    gp.GaussianProcess = Solved()
    held_out.baselines = lambda screen: ["mean"]  # avoids solving gp for each report
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with contextlib.chdir(folder):  # where there is no vcell.toml
        for start, line, result in pieces(arguments, folder, common):
            found.setdefault((start, line), []).append(result)
    print(f"{arguments.cells or SIZE}, {len(arguments.seeds)} seeds, {' '.join(common)}")
    for start in arguments.starts:
        first = found[start, arguments.lines[0]]
        scores = [f"{s} {np.mean([r['scores']['start'][s] for r in first]):.3f}" for s in SCORES]
        print(f"\nFrom the {start} ({', '.join(scores)}):\n")
        print("| line | gain | PDS | correlation | MAE below | blend | all or nothing | CPU s |")
        print("|---" * 8 + "|")
        for line in arguments.lines:
            print(row(line, found[start, line], first))


def _numbers(text: str) -> range:
    low, _, high = text.partition("-")
    return range(int(low), int(high or low) + 1)


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
