"""Figures of docs/trust.md: what a metric or a feature table is worth on Norman, in K562.

    python benchmarks/trust.py --data ../shared/data --seeds 3

1. The mean effect of the training perturbations against what was held out: correlation with all
   controls on both sides, and with halves of their own. Means over splits of the controls.
2. The Gaussian process `gp` with different tables: what comes with vcell, the same dealt to the
   wrong genes, random numbers, and both of the first and last. Five folds, pooled.
Mean ± standard deviation over seeds, which draw folds and halves.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.closed.baselines import MeanEffect
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import LogCells
from vcell.genes.features import shipped_features
from vcell.models.scoring import each
from vcell.screen import measure
from vcell.screen.design import Design
from vcell.screen.split import TEST

if TYPE_CHECKING:
    from vcell.models import Screen

FOLDS = 5


def screens(path: Path, seed: int, **settings: object) -> list[Screen]:
    """Measure the screen of every fold; a twentieth at most is not learnt from."""
    found = []
    with open_cells(path) as source:
        config = TrainVcc(seed=seed, validation_share=0.01, **settings)  # type: ignore[arg-type]
        told, scale = labels.find(source, config, quiet=True), detect.scale(source, quiet=True)
        design = Design.read(source, told)
        for fold in range(1, FOLDS + 1):
            config = TrainVcc(seed=seed, validation_share=0.01, fold=f"{fold}/{FOLDS}", **settings)  # type: ignore[arg-type]
            found.append(measure.screen_of(LogCells(source, scale.kind, np.nan), design, config))
    return found


def pooled(folds: list[Screen], model: type) -> dict[str, float]:
    """Return the scores of a model over the held-out perturbations of all folds together."""
    said, real, target = [], [], []
    for screen in folds:
        rows = screen.rows(TEST)
        names = screen.perturbations[rows].tolist()
        said.append(model(screen.settled()).predict(names))
        real.append(screen.delta[rows])
        target.append(screen.targets(names))
    found = each(np.vstack(said), np.vstack(real), np.concatenate(target))
    return {name: float(values.mean()) for name, values in found.items()}


def tables(folder: Path, seed: int) -> dict[str, dict[str, object]]:
    """Return the settings of each table of features."""
    rng = np.random.default_rng([seed, 7])
    _, genes, values = shipped_features()[0]
    wrong, random = folder / f"wrong-{seed}.npz", folder / f"random-{seed}.npz"
    np.savez(wrong, genes=genes, features=rng.permutation(values))
    np.savez(random, genes=genes, features=rng.normal(size=values.shape))
    none = {"expression_features": False, "shipped_features": False}
    return {
        "GO and Reactome": {},
        "GO and Reactome, and a random block": {"features": (random,)},
        "GO dealt to the wrong genes": {**none, "features": (wrong,)},
        "random numbers": {**none, "features": (random,)},
    }


def told(values: list[float]) -> str:
    """Return mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    path = next(arguments.data.glob("*/norman19_k562_3375x500.h5ad")).resolve()
    nothing = Path(os.devnull).open("w")  # noqa: SIM115
    with contextlib.redirect_stderr(nothing):
        print("the mean effect, correlation with held-out effects")
        for controls in ("shared", "halves"):
            means = [
                pooled(screens(path, seed, controls=controls), MeanEffect)["delta_correlation"]
                for seed in range(arguments.seeds)
            ]
            print(f"| {controls} | {told(means)} |", flush=True)
        print("gp by its features (controls shared, as in papers): PDS, correlation")
        found: dict[str, list[dict[str, float]]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(arguments.seeds):
                for name, settings in tables(Path(folder), seed).items():
                    folds = screens(path, seed, controls="shared", **settings)
                    found.setdefault(name, []).append(pooled(folds, GaussianProcess))
        for name, scores in found.items():
            pds, r = ([one[s] for one in scores] for s in ("pds", "delta_correlation"))
            print(f"| {name} | {told(pds)} | {told(r)} |", flush=True)


if __name__ == "__main__":
    main()
