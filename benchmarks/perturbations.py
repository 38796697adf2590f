"""Models on perturbations they never saw: tables of mean and spread, on real and simulated cells.

    python benchmarks/perturbations.py --data ../shared/data
    python benchmarks/perturbations.py --data ../shared/data --cases norman --network transformer
    python benchmarks/perturbations.py --data ../shared/data --controls shared
    python benchmarks/perturbations.py --cases norman,norman_go --features growth.tsv.gz

Every fold is a run of `vcell train-vcc`, whose screen all models are then asked about; what they
say of the held-out perturbations of all folds is scored together (pseudobulk; PDS is a rank among
all of them). Seeds draw the folds (norman) or the cells and the split (simulator): the spread is
the standard deviation over seeds. Held-out and learnt effects have halves of the controls of their
own (`--controls shared`: all controls for both, as in papers). Features are those that come with
vcell, and expression; `--features` adds a table. `doubles` and `h1` have five perturbations to hold
out, one at a time, and PDS moves in steps of 0.04: seeds change nothing for `h1`, and draw four
fifths of the cells for `doubles` (`all_cells`: the same pairs with every cell). "PDS among all"
ranks the true effect among those of all measured perturbations. `norman_go` has the folds and the
one table, of GO, of figures before 28 November 2026; `gbm` nine knock-downs in three glioblastoma
lines, with hardly any effect. PDS, as the challenge defines it, leaves out a single target's own
gene when its prediction is ranked; "with own" leaves out nothing, "without own" the targets of all
perturbations. "gp, predict --for pds" is gp times the strength that `predict` chooses for PDS, by
training perturbations that are left out. Nothing is chosen by what is held out. The verdict is that
of `vcell train-vcc --folds`, for each seed.

`simulator`: gene features are the true memberships; `shuffled`: the same, dealt to the wrong genes.
There the share of the attainable gain is (PDS - PDS of perturbed-mean) / (PDS of fresh cells of the
truth - PDS of perturbed-mean).

Below each table: how the standard deviation that a model reports of each perturbation (root mean
square over genes) ranks its error, less the noise of the cells (Spearman, all folds together).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from scipy.stats import spearmanr
from vcell_predict.strength.aims import LeftOut

from vcell import models
from vcell.cli import run as vcell
from vcell.data.simulate import CONTROL, Simulator, oracle
from vcell.models import Screen, members
from vcell.models.held_out import HeldOut
from vcell.models.scoring import mean_of, scores, without_own
from vcell.runs import Run
from vcell.screen.split import TRAIN

FOLDS = 5
ASKED = (
    *("mean", "perturbed-mean", "perturbed-mean-own", "no-change"),
    *("ridge", "additive", "knn", "gp"),
)
FOR_PDS = "gp, predict --for pds"
SCORES = (
    *("pds", "pds_with_own", "pds_without_own", "pds_among_all"),
    *("delta_correlation", "mae"),
)
LEVELS = ("pds", "delta_correlation", "mae")
SHARE = 0.8  # share of each perturbation's cells drawn by a seed of `doubles`
SIZE: dict[str, Any] = {"cells": 8000, "genes": 1000, "perturbations": 80}
ORACLE_CELLS = 300  # per perturbation: three times those in the screen


@dataclass(frozen=True)
class Fold:
    """The input of one run; `truth` predicts as well as the cells allow, if it is known."""

    cells: Path
    words: list[str]
    truth: Callable[[Screen, list[str]], np.ndarray] | None = None


def norman(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Single and double activations in K562: a fifth of the perturbations held out at a time."""
    for k in range(1, FOLDS + 1):
        yield Fold(_norman(data), ["--fold", f"{k}/{FOLDS}"])


def norman_go(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Hold out the same, in folds drawn before what GO does not know was left out."""
    labels = sorted(
        set(anndata.read_h5ad(_norman(data), backed="r").obs["condition"]) - {"control"}
    )
    order = np.random.default_rng([seed, 0x5917]).permutation(labels)
    table = next(data.glob("*/derived/go_svd64_vcc.npz"))
    known = set(np.load(table)["genes"])
    for k in range(FOLDS):
        names = folder / f"before-{seed}-{k}.txt"
        held = [name for name in order[k::FOLDS] if known.issuperset(members(name))]
        names.write_text("\n".join(held) + "\n")
        words = ["--held-out", str(names), "--features", str(table), "--no-shipped-features"]
        yield Fold(_norman(data), words)


def gbm(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Knock-downs in three glioblastoma lines: a fifth of them held out at a time."""
    cells = folder / "gbm.h5ad"
    if not cells.exists():
        whole = anndata.read_h5ad(next(data.glob("*/devel.h5ad")))
        part = whole[(whole.obs["dataset"] == "mcfaline23").to_numpy()].copy()
        part.obs = part.obs[["condition", "cell_type"]].astype(str)
        part.write_h5ad(cells)
    for k in range(1, FOLDS + 1):
        yield Fold(cells, ["--fold", f"{k}/{FOLDS}"])


def doubles(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Pairs whose genes were both measured alone: a fifth of them held out at a time."""
    yield from _doubles(data, folder, seed, SHARE)


def all_cells(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Hold out the same pairs with all cells: seeds change nothing."""
    yield from _doubles(data, folder, seed, 1.0)


def _doubles(data: Path, folder: Path, seed: int, share: float) -> Iterator[Fold]:
    whole = anndata.read_h5ad(_norman(data))
    column, rng = whole.obs["condition"].to_numpy(), np.random.default_rng(seed)
    labels = sorted(set(column))
    places = [rng.permutation(np.flatnonzero(column == label)) for label in labels]
    drawn = np.sort(np.concatenate([one[: round(share * len(one))] for one in places]))
    cells = folder / f"norman-{seed}-{share:g}.h5ad"
    whole[drawn].write_h5ad(cells)
    able = sorted(
        name for name in labels if len(members(name)) == 2 and set(members(name)) <= set(labels)
    )
    order = np.random.default_rng(seed).permutation(able)
    for k in range(FOLDS):
        names = folder / f"doubles-{seed}-{k}.txt"
        names.write_text("\n".join(order[k::FOLDS]) + "\n")
        yield Fold(cells, ["--held-out", str(names)])


def h1(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Five knock-downs of H1 cells, 100 cells each: one held out at a time."""
    cells = data / "vcc25" / "H1-VCC-2025-training_600x1000.h5ad"
    for k in range(1, 6):
        yield Fold(cells, ["--fold", f"{k}/5"])


def simulator(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Hold out simulated knock-downs, with informative features."""
    yield _simulated(folder, seed, shuffled=False)


def shuffled(data: Path, folder: Path, seed: int) -> Iterator[Fold]:
    """Hold out simulated knock-downs, with uninformative features."""
    yield _simulated(folder, seed, shuffled=True)


CASES = {
    f.__name__: f for f in (norman, norman_go, doubles, all_cells, h1, gbm, simulator, shuffled)
}


def _norman(data: Path) -> Path:
    return next(data.glob("*/norman19_k562_3375x500.h5ad"))


def _simulated(folder: Path, seed: int, *, shuffled: bool) -> Fold:
    sim = Simulator(**SIZE, seed=seed)
    cells = folder / f"simulated-{seed}.h5ad"
    if not cells.exists():
        sim.write(cells)
    features = sim.truth.loadings.T
    if shuffled:
        features = np.random.default_rng([seed, 1]).permutation(features)
    table = folder / f"features-{seed}-{'shuffled' if shuffled else 'true'}.npz"
    np.savez(table, genes=sim.truth.genes, features=features)

    def truth(screen: Screen, names: list[str]) -> np.ndarray:
        fresh = oracle(sim, ORACLE_CELLS, names)
        counts = sp.csr_matrix(fresh.X, dtype=np.float64)
        scale = screen.target_sum / np.asarray(counts.sum(axis=1)).ravel()
        counts.data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
        label = fresh.obs["target_gene"].to_numpy()
        mean = {name: counts[label == name].mean(axis=0) for name in (CONTROL, *names)}
        return np.asarray(np.vstack([mean[name] - mean[CONTROL] for name in names]))

    return Fold(
        cells,
        ["--features", str(table), "--no-expression-features", "--no-shipped-features"],
        truth,
    )


def measure(
    case: str, data: Path, folder: Path, seed: int, network: str | None, more: list[str]
) -> dict[str, Any]:
    """Return the scores of every model on one seed; `more` are further words of every run."""
    said: dict[str, list[np.ndarray]] = {}
    among: dict[str, list[np.ndarray]] = {}
    doubt: dict[str, list[np.ndarray]] = {}
    real, target, held, noise, own, runs_ = [], [], [], [], [], []
    for fold in CASES[case](data, folder, seed):
        runs = Path(tempfile.mkdtemp(dir=folder))
        words = ["train-vcc", str(fold.cells), "--quiet", "--seed", str(seed), "--runs", str(runs)]
        words += more
        # closed forms need no validation set; a network has the usual share
        words += ["--model", network] if network else ["--model", "mean", "--validation-share=0.01"]
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            code = vcell([*words, *fold.words])
        if code:
            raise SystemExit(f"vcell {' '.join([*words, *fold.words])} failed")
        run = Run.open("latest", root=runs)
        screen = Screen.load(run.path / models.SCREEN)
        rows = screen.rows(2)
        names, contexts = screen.names(rows)
        for name in (*ASKED, *([network] if network else [])):
            model = models.get(name).load(run, screen.settled())
            said.setdefault(name, []).append(model.predict(names, contexts))
            if name == "gp":
                strength = _for_pds(screen.settled(), model.loo())
                said.setdefault(FOR_PDS, []).append(strength * said["gp"][-1])
            if hasattr(model, "std"):
                doubt.setdefault(name, []).append(_size(model.std(names)))
        if fold.truth is not None:
            said.setdefault("oracle", []).append(fold.truth(screen, names))
        for name, effects in said.items():
            among.setdefault(name, []).append(_among_all(effects[-1], screen, rows))
        real.append(screen.delta[rows])
        target.append(screen.targets(names))
        own.append(_wide(screen.columns(names)))
        runs_.append(run)
        noise.append(screen.noise[rows])
        held += names
    found: dict[str, Any] = {
        name: scores(np.vstack(effects), np.vstack(real), np.concatenate(target))
        for name, effects in said.items()
    }
    for name, effects in said.items():
        whole = scores(np.vstack(effects), np.vstack(real), np.full(len(held), -1))
        found[name]["pds_with_own"] = whole["pds"]
        bare = without_own(np.vstack(effects), np.vstack(real), np.vstack(own))
        found[name]["pds_without_own"] = float(bare["pds"].mean())
        found[name]["correlation_without_own"] = float(bare["delta_correlation"].mean())
    for name, ranks in among.items():
        found[name]["pds_among_all"] = float(np.concatenate(ranks).mean())
    for name, spread in doubt.items():
        error = np.square(_size(np.vstack(said[name]) - np.vstack(real))) - np.concatenate(noise)
        ranks = spearmanr(np.concatenate(spread), np.maximum(error, 0))
        found[name]["doubt"] = float(ranks.statistic)
    pooled = HeldOut.read(runs_)
    verdicts = {
        ours: pooled.judged(ours).plain() for ours in ("gp", *([network] if network else []))
    }
    levels = {
        name: mean_of({s: v[~np.isnan(v)] for s, v in one.items() if not np.isnan(v).all()})
        for name, one in pooled.levels.items()
    }
    return {"scores": found, "held_out": held, "verdicts": verdicts, "levels": levels}


def _for_pds(screen: Screen, left_out: np.ndarray) -> float:
    """Return the strength of `predict --for pds`, by predictions of left-out training rows."""
    rows = screen.rows(TRAIN)
    target = screen.targets(screen.perturbations[rows].tolist())
    return LeftOut(left_out.astype(float), screen.denoised(rows), target, np.nan).best("pds")


def _wide(own: np.ndarray) -> np.ndarray:
    """Return the columns of targets, as wide as the largest set."""
    return np.pad(own, ((0, 0), (0, 4 - own.shape[1])), constant_values=-1)


def _size(effects: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(effects).mean(axis=1)))


def _among_all(effects: np.ndarray, screen: Screen, rows: np.ndarray) -> np.ndarray:
    """Return for each effect 1 - the share of all measured perturbations that are nearer to it."""
    targets = screen.targets(screen.perturbations[rows].tolist())
    found = []
    for effect, row, target in zip(effects, rows, targets, strict=True):
        apart = np.abs(screen.delta - effect)
        if target >= 0:  # the target's own gene would identify it
            apart[:, target] = 0
        distance = apart.sum(axis=1)
        found.append(1 - (distance < distance[row]).mean())
    return np.array(found)


def table(case: str, results: list[dict[str, Any]], network: str | None) -> str:
    """Return the table of one case, and the difference of vcell's best model from the baselines."""
    found = [result["scores"] for result in results]
    lines = [f"\n{case}: {len(results[0]['held_out'])} held out, {len(found)} seeds"]
    head = ["model", "PDS", "with own", "without own", "PDS among all", "delta correlation", "MAE"]
    attainable = "oracle" in found[0]
    lines.append(
        "| " + " | ".join([*head, *(["attainable PDS gain"] if attainable else [])]) + " |"
    )
    lines.append("|---" * (len(head) + attainable) + "|")
    for name in found[0]:
        cells = [_pm([one[name][score] for one in found]) for score in SCORES]
        if attainable:
            cells.append(_pm([_share(one, name) for one in found]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for level in results[0]["levels"]:
        shown = [s for s in LEVELS if all(s in one["levels"][level] for one in results)]
        told = (f"{s} {_pm([one['levels'][level][s] for one in results])}" for s in shown)
        if shown:
            lines.append(f"{level}, within folds: {', '.join(told)}")
    for ours in results[0]["verdicts"]:
        lines += [f"seed {i}: {one['verdicts'][ours]['text']}" for i, one in enumerate(results)]
    for name in (name for name in found[0] if "doubt" in found[0][name]):
        told = _pm([one[name]["doubt"] for one in found])
        lines.append(f"{name}: its standard deviation ranks its errors at {told}")
    for ours in ("gp", *([network] if network not in (None, "gp") else [])):
        for name in ASKED[:-1] if ours == "gp" else ASKED:
            told = []
            for score in ("pds", "pds_among_all", "delta_correlation"):
                gain = np.array([one[ours][score] - one[name][score] for one in found])
                told.append(f"{score} {_pm(gain)}, above in {(gain > 0).sum()} of {len(gain)}")
            lines.append(f"{ours} over {name}: {'; '.join(told)}")
    return "\n".join(lines)


def _share(one: dict[str, Any], name: str) -> float:
    floor = one["perturbed-mean"]["pds"]
    return float((one[name]["pds"] - floor) / (one["oracle"]["pds"] - floor))


def _pm(values: Any) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f} ± {spread:.4f}"


def main() -> None:
    """Measure the selected cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cases", default=",".join(CASES), help="which, by comma")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--network", help="train this model too: transformer or shared-encoder")
    parser.add_argument("--controls", choices=("halves", "shared"), default="halves")
    parser.add_argument("--features", type=Path, help="a table of genes that all models get, too")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    data, kept = arguments.data.resolve(), {}
    if not data.is_dir():
        parser.error(f"{data} is not a folder: --data says where the cells are")
    more = ["--controls", arguments.controls]
    if arguments.features:
        more += ["--features", str(arguments.features.resolve())]
    output = arguments.json.resolve() if arguments.json else None
    with (
        tempfile.TemporaryDirectory(prefix="perturbations-") as temporary,
        contextlib.chdir(temporary),  # where there is no vcell.toml
    ):
        for case in arguments.cases.split(","):
            kept[case] = [
                measure(case, data, Path(temporary), seed, arguments.network, more)
                for seed in range(arguments.seeds)
            ]
            print(table(case, kept[case], arguments.network), flush=True)
            if output:
                output.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
