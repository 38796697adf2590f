"""Do graphs of genes help on perturbations never seen? Against rewired graphs, and none.

    python benchmarks/perturbation_graphs.py gp --data ../shared/data
    python benchmarks/perturbation_graphs.py network --data ../shared/data

`gp`: the screens are those of benchmarks/perturbations.py. norman has the GO graph of shared/data
(GEARS' way: Jaccard above 0.1, 20 neighbours a gene), once beside all default features, once beside
expression alone (`bare`). simulator has eight neighbours a gene by the true loadings, and as many
edges drawn at random, beside expression; `noise`: beside random numbers in the place of it.
`rewired` has the same degrees and random edges.

`network`: the transformer, with the graph as features and in the loss (`--graph-loss`), with the
graph as features alone, with the rewired graph for both, and without; scored at its last step, over
its tokens, as benchmarks/ablation.py does. norman holds out one fold a seed, another each time, and
has the part of the graph between genes that were measured or targeted. Few genes and few steps: the
figures compare, and say nothing of how good a network can be.

Runs and scores are kept in --output, a file a seed: what is there is not measured again.
Differences are paired by seed: mean and Student's 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import perturbations
from ablation import Last, scored
from scipy import stats
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell import console, models
from vcell.cli import run as vcell
from vcell.data.simulate import Simulator
from vcell.errors import UserError
from vcell.graph import GeneGraphs, Relation, read
from vcell.models import SCREEN, Screen
from vcell.models.scoring import scores
from vcell.runs import Run
from vcell.screen.features import FeatureBlock, combine
from vcell.screen.graphs import blocks_of

NEAR = 8  # neighbours of a simulated gene
GO = "human_genes/derived/go_jaccard_top20_vcc.tsv.gz"
SCORES = {"pds": 1, "delta_correlation": 1, "mae": -1}  # -1: lower is better
SIM: dict[str, Any] = {"cells": 2500, "genes": 400, "perturbations": 70}  # for the network
SMALL = ["--preset", "tiny", "--tokens", "48", "--max-steps", "80", "--validate-every", "0"]
SMALL += ["--lr", "0.003", "--checkpoint-every", "0"]


def truth(sim: Simulator, seed: int) -> GeneGraphs:
    """Return the graph of a simulation: half true edges, half random ones."""
    loadings, rng = sim.truth.loadings.T, np.random.default_rng([seed, 7])
    n, size = len(loadings), np.linalg.norm(loadings, axis=1)
    unit = loadings / np.maximum(size, 1e-9)[:, None]
    alike = unit @ unit.T + rng.normal(scale=0.05, size=(n, n))
    np.fill_diagonal(alike, -np.inf)
    alike[:, size == 0] = -np.inf
    told = np.flatnonzero(size > 0)
    near = np.argsort(-alike[told], axis=1)[:, :NEAR]
    drawn = rng.integers(0, n, (2, near.size))
    source = np.concatenate([np.repeat(told, NEAR), drawn[0]])
    target = np.concatenate([near.ravel(), drawn[1]])
    relation, _, _ = Relation.from_edges("graph", source, target, n)
    return GeneGraphs(tuple(map(str, sim.truth.genes)), (relation,), {})


def written(graphs: GeneGraphs, path: Path) -> Path:
    """Write the edges as a table."""
    genes, (relation,) = graphs.genes, graphs.relations
    lines = (f"{genes[i]}\t{genes[j]}\n" for i, j in relation.edge_index().T)
    path.write_text("gene_a\tgene_b\n" + "".join(lines))
    return path


def quiet(words: list[str], runs: Path) -> Run:
    """Run train-vcc and return the run; an existing run is not repeated."""
    with contextlib.suppress(UserError):
        if (run := Run.open("latest", root=runs)).status() == "done":
            return run
    command = ["train-vcc", *words, "--quiet", "--runs", str(runs)]
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        if vcell(command):
            raise SystemExit(f"vcell {' '.join(command)} failed")
    return Run.open("latest", root=runs)


def joined(screen: Screen, graph: FeatureBlock | None, base: str) -> Screen:
    """Return the screen with other features: those of a graph next to some of its own."""
    blocks = []
    for name, columns in screen.block_columns().items():
        if base == "bare" and name != "expression":
            continue
        values = screen.features[:, columns].astype(np.float64)
        if base == "noise":
            values = np.random.default_rng(0).normal(size=values.shape)
        known = np.abs(values).max(axis=1) > 0
        blocks.append(FeatureBlock(name, screen.feature_genes[known].tolist(), values[known]))
    if graph is not None:
        blocks.append(replace(graph, source="graph"))
    quietly, console.settings = console.settings, console.Settings(verbosity=console.QUIET)
    found = combine(blocks, [])
    console.settings = quietly
    return replace(
        screen, feature_genes=found.genes, features=found.values, blocks=found.blocks,
        widths=found.widths, graph_names=np.array(["graph"] if graph else [], np.str_),
    )  # fmt: skip


def gp(case: str, data: Path, folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Return the scores of gp in every arm, for one seed."""
    if case == "norman":
        graphs, bases = read([data / GO]), ("default", "bare")
    else:
        graphs, bases = truth(Simulator(**perturbations.SIZE, seed=seed), seed), ("bare", "noise")
    arms = {"none": None, "graph": graphs, "rewired": graphs.rewired(seed)}
    blocks = {arm: one and blocks_of(one)[0] for arm, one in arms.items()}
    said: dict[str, list[np.ndarray]] = {}
    weight: dict[str, list[float]] = {}
    real, target = [], []
    for number, fold in enumerate(perturbations.CASES[case](data, folder, seed)):
        words = [str(fold.cells), "--seed", str(seed), "--model", "mean"]
        words += ["--validation-share=0.01", *(fold.words if case == "norman" else [])]
        screen = Screen.load(quiet(words, folder / f"{case}-{seed}-{number}").path / SCREEN)
        rows = screen.rows(2)
        names, _ = screen.names(rows)
        for base in bases:
            for arm, block in blocks.items():
                model = GaussianProcess(joined(screen, block, base).settled())
                said.setdefault(f"{base}/{arm}", []).append(model.predict(names))
                weight.setdefault(f"{base}/{arm}", []).append(model.blocks.get("graph", 0.0))
        real.append(screen.delta[rows])
        target.append(screen.targets(names))
    every = {name: np.vstack(one) for name, one in said.items()}
    truth_of, own = np.vstack(real), np.concatenate(target)
    told = {}
    for base in bases:
        arms_of = {name: one for name, one in every.items() if name.startswith(base)}
        # a target without features in one arm has no prediction there, and is left out of all arms
        known = np.all([np.isfinite(one).all(axis=1) for one in arms_of.values()], axis=0)
        for name, one in arms_of.items():
            told[name] = scores(one[known], truth_of[known], own[known])
    return {name: one | {"weight": float(np.mean(weight[name]))} for name, one in told.items()}


def network(case: str, data: Path, folder: Path, seed: int, weight: float) -> dict[str, Any]:
    """Return the scores of the transformer in every arm, for one seed."""
    if case == "norman":
        cells = next(data.glob("*/norman19_k562_3375x500.h5ad"))
        words = [f"--fold={seed % 5 + 1}/5"]
        adata = anndata.read_h5ad(cells, backed="r")
        targets = {gene for name in set(adata.obs["condition"]) for gene in str(name).split("+")}
        named = list(dict.fromkeys([*adata.var_names, *sorted(targets - {"control"})]))
        graphs = read([data / GO]).onto(named)
    else:
        sim = Simulator(**SIM, seed=seed)
        cells = folder / f"cells-{seed}.h5ad"
        sim.write(cells)
        words, graphs = ["--no-shipped-features"], truth(sim, seed)
    files = {"graph": graphs, "rewired": graphs.rewired(seed)}
    paths = {name: str(written(one, folder / f"{name}.tsv")) for name, one in files.items()}
    loss = ["--graph-loss", str(weight)]
    arms = {
        "default/none": [],
        "default/features": ["--graph", paths["graph"]],
        "default/graph": ["--graph", paths["graph"], *loss],
        "default/rewired": ["--graph", paths["rewired"], *loss],
    }
    found: dict[str, Any] = {}
    for arm, more in arms.items():
        runs = folder / f"{case}-{seed}-{arm.replace('/', '-')}"
        run = quiet([str(cells), *words, *SMALL, "--seed", str(seed), *more], runs)
        screen = Screen.load(run.path / models.SCREEN)
        found[arm] = scored(screen, run, "transformer", Last(run), whole=False)
        if arm == "default/none":
            found["default/prior"] = scored(screen, run, "gp", run, whole=False)
    return found


def table(case: str, results: list[dict[str, dict[str, Any]]]) -> str:
    """Return the scores, and paired differences from the arms without or with a rewired graph."""
    lines = [
        f"\n{case}, {len(results)} seeds",
        "| arm | PDS | correlation | MAE | graph's weight |",
    ]
    lines.append("|---" * 5 + "|")
    for arm in results[0]:
        cells = [_pm([one[arm][score] for one in results]) for score in SCORES]
        cells.append(_pm([one[arm]["weight"] for one in results]) if "weight" in
                     results[0][arm] else "")  # fmt: skip
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    for arm in (arm for arm in results[0] if not arm.endswith(("/none", "/prior"))):
        for other in ("none", "features", "rewired"):
            against = f"{arm.split('/')[0]}/{other}"
            if against == arm or against not in results[0]:
                continue
            told = []
            for score, sign in SCORES.items():
                more = [sign * (one[arm][score] - one[against][score]) for one in results]
                told.append(f"{score} {_interval(more)}")
            lines.append(f"{arm} better than {other}: {'; '.join(told)}")
    return "\n".join(lines)


def _pm(values: list[float]) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f} ± {spread:.4f}"


def _interval(values: list[float]) -> str:
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return f"{mean:+.4f}"
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


def main() -> None:
    """Measure the selected cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("gp", "network"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cases", default="norman,simulator", help="which, by comma")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--graph-loss", type=float, default=0.01, help="of the network")
    parser.add_argument("--output", type=Path, help="folder of the runs; goes on from there")
    arguments = parser.parse_args()
    data, what = arguments.data.resolve(), arguments.what
    folder = (arguments.output or Path(tempfile.mkdtemp(prefix="graphs-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):  # where there is no vcell.toml
        for case in arguments.cases.split(","):
            results = []
            for seed in range(arguments.seeds):
                kept = folder / f"{what}-{case}-{seed}.json"
                if not kept.exists():
                    found = (
                        gp(case, data, folder, seed)
                        if what == "gp"
                        else network(case, data, folder, seed, arguments.graph_loss)
                    )
                    kept.write_text(json.dumps(found, indent=1))
                results.append(json.loads(kept.read_text()))
            print(table(case, results), flush=True)


if __name__ == "__main__":
    main()
