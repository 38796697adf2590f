"""Likelihood kernels, whole steps and labels of train-gmvae beside scvi-tools, in CPU seconds.

    python benchmarks/gmvae.py --peer PEER_PYTHON kernels
    python benchmarks/gmvae.py --peer PEER_PYTHON steps
    python benchmarks/gmvae.py --peer PEER_PYTHON labels SET.h5ad ... --column cell_type
    python benchmarks/gmvae.py components SET.h5ad ... --column cell_type
    python benchmarks/gmvae.py fractions SET.h5ad ... --column cell_type

`--peer` is a Python with scvi-tools. Ours and the peer's take turns in processes of their own, each
on one thread; the least of the turns counts, since whatever else the machine does only adds. CPU
time is user and system time of the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmvae_programs import (
    KERNELS_OURS,
    KERNELS_PEER,
    SCANVI,
    STEPS_MSE,
    STEPS_OURS,
    STEPS_SCVI,
    TIMES,
)

if TYPE_CHECKING:
    from vcell_train_gmvae.study import Study

    from vcell.gmvae.cells import ResidentCells
    from vcell.runs import Run


def _python(python: str | Path, code: str, *words: object) -> dict[str, float] | float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, *map(str, words)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def kernels(peer: str, turns: int) -> None:
    """Forward and backward pass of one batch of 128 cells and 24,000 genes, 5.5 % not zero."""
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for _ in range(turns):
        for found, python, code, names in (
            (ours, sys.executable, KERNELS_OURS, "nb,zinb,encoder"),
            (theirs, peer, KERNELS_PEER, "nb,zinb,mse,encoder"),
        ):
            for name, value in _python(python, code + TIMES, names, 7).items():
                found[name] = min(found.get(name, 1e9), value)
    for name in ("nb", "zinb", "encoder"):
        print(f"{name}: {1e3 * ours[name]:.1f} ms, peer {1e3 * theirs[name]:.1f} ms, "
              f"{theirs[name] / ours[name]:.1f} times")  # fmt: skip
    print(
        f"two-log1p MSE: {1e3 * theirs['mse']:.1f} ms, {theirs['mse'] / ours['nb']:.2f} of our NB"
    )


def steps(peer: str, turns: int, only: str) -> None:
    """Cells per CPU second of training steps, B = 256; shapes whose name starts with `only`."""
    for name, widths, latent, decoder in (
        ("128/10", [128], 10, [128]),
        ("original's widths", [512, 256], 64, [256, 512]),
        ("original's encoder, decoder of 256-128", [512, 256], 64, [256, 128]),
    ):
        if not name.startswith(only):
            continue
        todo = {
            "ours nb": (sys.executable, STEPS_OURS, "nb"),
            "ours zinb": (sys.executable, STEPS_OURS, "zinb"),
            "scVI nb": (peer, STEPS_SCVI, "nb"),
            "original mse": (peer, STEPS_MSE, "mse"),
        }
        found = dict.fromkeys(todo, 0.0)
        for _ in range(turns):
            for what, (python, code, kind) in todo.items():
                # the original has only its own decoder
                own = [256, 512] if what == "original mse" else decoder
                told = json.dumps([widths, latent, own, 256, kind, 4])
                found[what] = max(found[what], float(_python(python, code, told)))
        told = ", ".join(f"{what} {value:,.0f}" for what, value in found.items())
        ours = found["ours nb"]
        print(f"{name}: cells/s {told}; ours nb is {ours / found['scVI nb']:.2f} scVI's "
              f"and {ours / found['original mse']:.2f} the original's MSE")  # fmt: skip


def labels(args: argparse.Namespace) -> None:
    """Held-out accuracy and macro-F1 with a tenth of the labels shown, over seeds."""
    import numpy as np

    rows = []
    methods = {
        "ours": "gmvae", "alone": "gmvae, latent means alone",
        "logistic": "logistic regression on 30 PCs",
        "scaled": "logistic regression on 30 PCs of scaled genes",
    }  # fmt: skip
    names = (*methods, "scanvi")
    for path in args.sets:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            told = _trained(path, args, seed, "0.1")
            held_out = told["held_out"]
            row = {"set": path.stem, "seed": seed}
            for name, key in methods.items():
                row[name] = (held_out[key]["accuracy"], held_out[key]["macro_f1"])
            if args.peer:
                row["scanvi"] = _scanvi(args, path, Path(told["run"]), seed)
            rows.append(row)
            print(json.dumps(row), flush=True)
    for stem in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == stem]
        mean = {n: np.mean([row[n] for row in own], 0) for n in names if n in own[0]}
        print(stem, ", ".join(f"{n} {a:.3f}/{f:.3f}" for n, (a, f) in mean.items()))
        for name in list(mean)[1:]:
            gain = np.array([np.subtract(row["ours"], row[name]) for row in own])
            told = "; ".join(", ".join(f"{v:+.3f}" for v in gain[:, i]) for i in (0, 1))
            a, f = gain.mean(0)
            print(f"  less {name} {a:+.3f}/{f:+.3f} (accuracy, macro-F1 by seed: {told})")


def components(args: argparse.Namespace) -> None:
    """ARI of the mixture's components, and of Gaussian mixtures on 30 PCs, without labels.

    Both are fitted to the same cells, with as many components as there are labels, and compared on
    all cells. The Gaussian mixtures have full and diagonal covariances; the best of ten starts by
    likelihood counts.
    """
    import numpy as np
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture
    from vcell_train_gmvae.report import encoded

    from vcell.gmvae.components import Components
    from vcell.gmvae.trained import Trained

    for path in args.sets:
        found: dict[str, list[float]] = {}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            run, study, cells = _opened(_trained(path, args, seed, "0"))
            joint = encoded(Trained.load(run), study, cells).joint
            known = study.label >= 0
            given = {"ours": joint.argmax(1)}
            train = np.flatnonzero(~study.held_out)
            x = Components.learnt(cells, train, seed=seed).of(cells, np.arange(len(known)))
            for kind in ("full", "diag"):
                mixture = GaussianMixture(len(study.labels), covariance_type=kind, n_init=10,
                                          random_state=seed, reg_covar=1e-4)  # fmt: skip
                given[f"gmm {kind}"] = mixture.fit(x[train]).predict(x)
            row: dict[str, object] = {"set": path.stem, "seed": seed}
            for name, code in given.items():
                row[name] = adjusted_rand_score(study.label[known], code[known])
                found.setdefault(name, []).append(row[name])
            print(json.dumps(row), flush=True)
        print(path.stem, ", ".join(f"{name} {np.mean(v):.3f}" for name, v in found.items()))


def _trained(path: Path, args: argparse.Namespace, seed: int, share: str) -> dict[str, Any]:
    """Train with a share of the labels; return the result of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "vcell", "train-gmvae", path, "--labels", args.column,
         "--label-fraction", share, "--seed", str(seed), "--json",
         "--max-steps", str(args.max_steps)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _opened(told: dict[str, Any]) -> tuple[Run, Study, ResidentCells]:
    """Return the run, its study, and its cells."""
    from vcell_train_gmvae import TrainGmvae
    from vcell_train_gmvae.study import Study
    from vcell_train_gmvae.work import store_of

    from vcell.gmvae.cells import ResidentCells
    from vcell.runs import Run
    from vcell.train.command import settings_of_run

    run = Run.open(Path(told["run"]))
    study = Study.load(run)
    with store_of(settings_of_run(TrainGmvae, run)) as store:
        return run, study, ResidentCells.of(store, study.target)


def fractions(args: argparse.Namespace) -> None:
    """Share of cells with the right label, for several shares of labels, or wrong ones.

    A fifth of each right label's cells is set apart before training, the same for all rows of a
    seed, so that rows differ in the labels alone. Labels are those of ``vcell embed`` (without
    labels, the component), and the truth is always the right label.
    """
    import tempfile

    import anndata
    import numpy as np

    from vcell.gmvae.head import folds_of

    rows = []
    todo = [("right", 1.0), ("wrong", 1.0), ("right", 0.5), ("right", 0.1), ("right", 0.0)]
    for path in args.sets:
        data = anndata.read_h5ad(path)
        truth = data.obs[args.column].astype(str).to_numpy()
        names, code = np.unique(truth, return_inverse=True)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            rng = np.random.default_rng(seed)
            other = names[(code + rng.integers(1, len(names), len(code))) % len(names)]
            data.obs["right"] = truth
            data.obs["wrong"] = np.where(rng.random(len(truth)) < 0.2, other, truth)
            apart = folds_of(code, seed) == 0
            with tempfile.TemporaryDirectory() as folder:
                data[~apart].write_h5ad(f"{folder}/train.h5ad")
                data[apart].write_h5ad(f"{folder}/test.h5ad")
                for column, share in todo[: 2 if args.only == "wrong" else None]:
                    row = {"set": path.stem, "labels": column, "share": share, "seed": seed}
                    row |= _named(folder, column, share, seed, args.max_steps)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    for key in dict.fromkeys((row["set"], row["labels"], row["share"]) for row in rows):
        own = [row for row in rows if (row["set"], row["labels"], row["share"]) == key]
        told = [f"{n} {np.mean([row[n] for row in own]):.3f}"
                for n in ("accuracy", "macro_f1", "ari") if n in own[0]]  # fmt: skip
        print(*key, ", ".join(told))


def _named(folder: str, column: str, share: float, seed: int, most: int) -> dict[str, Any]:
    """Train, embed the cells that were set apart, and compare their labels with the right ones."""
    import anndata
    import numpy as np
    from sklearn.metrics import adjusted_rand_score, f1_score

    vcell = [sys.executable, "-m", "vcell"]
    words = ["--labels", column, "--label-fraction", str(share), "--seed", str(seed), "--json",
             "--max-steps", str(most), "--held-out-share", "0.1", "--min-cells", "2"]  # fmt: skip
    done = subprocess.run([*vcell, "train-gmvae", "train.h5ad", *words], cwd=folder,
                          capture_output=True, text=True, check=True)  # fmt: skip
    run = json.loads(done.stdout)["run"]
    subprocess.run([*vcell, "embed", run, "test.h5ad", "-o", "named.h5ad", "--overwrite",
                    "--unknown", "0"], cwd=folder, capture_output=True, check=True)  # fmt: skip
    obs = anndata.read_h5ad(f"{folder}/named.h5ad").obs
    right = obs["right"].astype(str).to_numpy()
    given = obs["gmvae_component" if share == 0 else "gmvae_label"].astype(str).to_numpy()
    found: dict[str, Any] = {"ari": adjusted_rand_score(right, given)}
    if share:
        found["accuracy"] = float((given == right).mean())
        found["macro_f1"] = f1_score(right, given, average="macro", labels=np.unique(right))
    return found


def _scanvi(args: argparse.Namespace, path: Path, run: Path, seed: int) -> tuple[float, float]:
    """Train scANVI on the same cells with the same labels shown."""
    import numpy as np
    from vcell_train_gmvae import TrainGmvae
    from vcell_train_gmvae.work import store_of

    from vcell.runs import Run
    from vcell.train.command import settings_of_run

    study = json.loads((run / "gmvae.json").read_text())
    with store_of(settings_of_run(TrainGmvae, Run.open(run))) as store:
        row = store.obs["source_row"].to_numpy()
    with np.load(run / "cells.npz") as file:
        known = dict(file)
    np.savez(run / "peer.npz", row=row, **known)
    # the slow part runs once for each set, seed and choice of labels
    shown = hashlib.sha256(known["shown"].tobytes() + known["held_out"].tobytes()).hexdigest()[:12]
    kept = args.kept / f"scanvi-{path.stem}-{seed}-{args.epochs}-{shown}.json"
    if not kept.is_file():
        told = _python(args.peer, SCANVI, path, run / "peer.npz", seed,
                       json.dumps(study["labels"]), args.epochs)  # fmt: skip
        args.kept.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(told))
    told = json.loads(kept.read_text())
    return told["accuracy"], told["macro_f1"]


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python with scvi-tools")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("what", choices=["kernels", "steps", "labels", "components", "fractions"])
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--column", default="cell_type")
    parser.add_argument(
        "--only",
        default="",
        help="steps: how a shape's name begins; fractions: wrong, for all labels right and wrong",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=0, help="of ours; 0 for the default")
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/.data/gmvae"),
                        help="folder for scANVI's scores, which are measured once")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=100, help="of scVI; scANVI a fifth more")
    args = parser.parse_args()
    if args.what == "steps":
        steps(args.peer, args.turns, args.only)
    elif args.what == "kernels":
        kernels(args.peer, args.turns)
    else:
        known = {"labels": labels, "components": components, "fractions": fractions}
        known[args.what](args)


if __name__ == "__main__":
    main()
