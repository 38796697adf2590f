"""Figures of docs/trust.md: the value of a metric or a feature table on Norman, in K562.

    python benchmarks/trust.py --data ../shared/data --seeds 3

1. The mean effect of the training perturbations against held-out ones: correlation with all
   controls on both sides, and with separate halves. Means over splits of the controls.
2. The Gaussian process `gp` with different tables: those shipped with vcell, the same assigned to
   the wrong genes, random numbers, and the first with an additional block: random numbers, for all
   genes or for four targets only, or how pairs of activations act on growth (Norman's map of the
   genetic interactions of 92 genes, without the screen's own pairs), also for the wrong genes. Five
   folds, pooled; differences from the first are paired by perturbation, with 95 % intervals.
3. The effect of removing the likely noise of the controls from effects before `gp` learns them,
   with halves of the controls, on Norman, the H1 slice and the glioblastoma lines (`--only
   denoised`, and `--cases`).
Mean ± standard deviation over seeds, which draw folds and halves.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.closed.baselines import MeanEffect
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.genes.features import shipped_features
from vcell.metrics import verdict
from vcell.models import members
from vcell.models.scoring import each
from vcell.screen import measure
from vcell.screen.design import Design
from vcell.screen.split import TEST

if TYPE_CHECKING:
    from vcell.models import Screen

FOLDS = 5
Scores = dict[tuple[str, int], float]  # of a perturbation in a context
FEW = ("KLF1", "CEBPE", "SET", "TBX3")  # targets, two of them in several sets


def screens(path: Path, seed: int, **settings: object) -> list[Screen]:
    """Measure the screen of every fold; at most a twentieth is not in the training set."""
    found = []
    with open_cells(path) as source:
        config = TrainVcc(seed=seed, validation_share=0.01, **settings)  # type: ignore[arg-type]
        told, scale = labels.find(source, config, quiet=True), detect.scale(source, quiet=True)
        design = Design.read(source, told)
        counts = scale.kind == COUNTS
        total = median_total(source, np.flatnonzero(design.control)) if counts else None
        for fold in range(1, FOLDS + 1):
            config = TrainVcc(seed=seed, validation_share=0.01, fold=f"{fold}/{FOLDS}", **settings)  # type: ignore[arg-type]
            found.append(
                measure.screen_of(LogCells(source, scale.kind, total or np.nan), design, config)
            )
    return found


def pooled(folds: list[Screen], model: type) -> dict[str, Scores]:
    """Return a model's scores of each held-out perturbation, all folds together."""
    said, real, target, held = [], [], [], []
    for screen in folds:
        rows = screen.rows(TEST)
        names = screen.perturbations[rows].tolist()
        said.append(model(screen.settled()).predict(names))
        real.append(screen.delta[rows])
        target.append(screen.targets(names))
        held += zip(names, screen.context[rows].tolist(), strict=True)
    found = each(np.vstack(said), np.vstack(real), np.concatenate(target))
    return {name: dict(zip(held, values.tolist(), strict=True)) for name, values in found.items()}


def denoised(cells: Path, seeds: int) -> None:
    """Print the scores of `gp` with and without the likely noise of the controls, and the gain."""
    found: dict[str, list[dict[str, Scores]]] = {}
    for seed in range(seeds):
        folds = screens(cells, seed)
        bare = [dataclasses.replace(one, control_noise=np.zeros(0, np.float32)) for one in folds]
        for name, some, model in (
            ("mean", bare, lambda screen: MeanEffect(screen, shrink=True)),
            ("left in", bare, GaussianProcess),
            ("taken off", folds, GaussianProcess),
        ):
            found.setdefault(name, []).append(pooled(some, model))
    gains: dict[str, list[Scores]] = {}
    for one in zip(*found.values(), strict=True):
        held = list(one[0]["pds"])
        scores = {
            name: {score: np.array(list(of[score].values())) for score in ("pds", "mae")}
            for name, of in zip(found, one, strict=True)
        }
        for name, values in verdict.gains(scores).items():
            gains.setdefault(name, []).append(dict(zip(held, values.tolist(), strict=True)))
    for name in ("left in", "taken off"):
        pds, mae = ([mean(one[s]) for one in found[name]] for s in ("pds", "mae"))
        print(f"| {cells.stem} | {name} | {told(pds)} | {told(mae, 4)} |", flush=True)
    print(f"gain {apart(gains['taken off'], gains['left in'])}", flush=True)


def glioblastoma(data: Path, folder: Path) -> Path:
    """Write only the cells of McFaline-Figueroa 2023."""
    whole = anndata.read_h5ad(next(data.glob("*/devel.h5ad")))
    part = whole[(whole.obs["dataset"] == "mcfaline23").to_numpy()].copy()
    part.obs = part.obs[["condition", "cell_type"]].astype(str)
    part.write_h5ad(folder / "glioblastoma.h5ad")
    return folder / "glioblastoma.h5ad"


def growth_of_pairs(data: Path) -> pd.DataFrame:
    """Return Norman's genetic interactions of 92 genes, 0 for the pairs that are in the screen."""
    table = pd.read_csv(next(data.glob("*/good_emap.tsv.gz")), sep="\t", index_col=0)
    cells = anndata.read_h5ad(next(data.glob("*/norman19_k562_3375x500.h5ad")), backed="r")
    for name in cells.obs["condition"].unique():
        pair = members(str(name))
        if len(pair) == 2 and table.index.isin(pair).sum() == 2:
            table.loc[pair[0], pair[1]] = table.loc[pair[1], pair[0]] = 0
    return table


def tables(data: Path, folder: Path, seed: int) -> dict[str, dict[str, object]]:
    """Return the settings of each table of features."""
    rng = np.random.default_rng([seed, 7])
    _, genes, values = shipped_features()[0]
    wrong, random = folder / f"wrong-{seed}.npz", folder / f"random-{seed}.npz"
    np.savez(wrong, genes=genes, features=rng.permutation(values))
    np.savez(random, genes=genes, features=rng.normal(size=values.shape))
    few = folder / f"few-{seed}.npz"
    np.savez(few, genes=FEW, features=rng.normal(size=(len(FEW), 16)))
    growth = growth_of_pairs(data)
    growth = growth[growth.index.isin(genes)]  # with IER5L, unknown to GO, folds would differ
    told, dealt = folder / f"growth-{seed}.csv", folder / f"dealt-{seed}.csv"
    growth.to_csv(told)
    growth.set_index(rng.permutation(growth.index)).to_csv(dealt)
    none = {"expression_features": False, "shipped_features": False}
    return {
        "GO and Reactome": {},
        "GO and Reactome, and a random block": {"features": (random,)},
        "GO and Reactome, and a block that knows four targets": {"features": (few,)},
        "GO and Reactome, and growth of pairs": {"features": (told,)},
        "GO and Reactome, and growth of pairs dealt to the wrong genes": {"features": (dealt,)},
        "GO dealt to the wrong genes": {**none, "features": (wrong,)},
        "random numbers": {**none, "features": (random,)},
    }


def apart(ours: list[Scores], others: list[Scores]) -> verdict.Difference:
    """Return the paired difference of scores (one dictionary per seed), averaged over seeds."""
    names = sorted(ours[0])
    values = [
        np.mean([a[name] - b[name] for a, b in zip(ours, others, strict=True)]) for name in names
    ]
    return verdict.difference(np.array(values), [members(name) for name, _ in names])


def mean(scores: Scores) -> float:
    """Return the mean over perturbations."""
    return float(np.mean(list(scores.values())))


def told(values: list[float], digits: int = 3) -> str:
    """Return mean and standard deviation."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0
    return f"{np.mean(values):.{digits}f} ± {spread:.{digits}f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("denoised",))
    parser.add_argument("--cases", default="norman,h1,gbm", help="of --only denoised")
    arguments = parser.parse_args()
    path = next(arguments.data.glob("*/norman19_k562_3375x500.h5ad")).resolve()
    nothing = Path(os.devnull).open("w")  # noqa: SIM115
    if arguments.only:
        with contextlib.redirect_stderr(nothing), tempfile.TemporaryDirectory() as folder:
            for case in arguments.cases.split(","):
                cells = path if case == "norman" else next(arguments.data.glob("vcc25/H1-*.h5ad"))
                if case == "gbm":
                    cells = glioblastoma(arguments.data, Path(folder))
                denoised(cells, arguments.seeds)
        return
    with contextlib.redirect_stderr(nothing):
        print("the mean effect, correlation with held-out effects")
        for controls in ("shared", "halves"):
            means = [
                mean(
                    pooled(screens(path, seed, controls=controls), MeanEffect)["delta_correlation"]
                )
                for seed in range(arguments.seeds)
            ]
            print(f"| {controls} | {told(means)} |", flush=True)
        print(
            "gp by its features (controls shared, as in papers): PDS, correlation, PDS over first"
        )
        found: dict[str, list[dict[str, Scores]]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(arguments.seeds):
                for name, settings in tables(arguments.data, Path(folder), seed).items():
                    folds = screens(path, seed, controls="shared", **settings)
                    found.setdefault(name, []).append(pooled(folds, GaussianProcess))
        for name, scores in found.items():
            pds, r = ([mean(one[s]) for one in scores] for s in ("pds", "delta_correlation"))
            first = next(iter(found.values()))
            more = apart([one["pds"] for one in scores], [one["pds"] for one in first])
            print(f"| {name} | {told(pds)} | {told(r)} | {more} |", flush=True)


if __name__ == "__main__":
    main()
