"""How sure gp must be to say more than the simplest answer, on simulated and real screens.

    python benchmarks/belief.py --seeds 12
    python benchmarks/belief.py --seeds 12 --cases sets
    python benchmarks/belief.py --seeds 2 --data ../shared/data --cases norman h1 gbm

Effects are the sum of one that all perturbations share, one that the features tell and one of its
own, of an energy in units of the noise of a measured effect; controls are halves. `sets`: 18 single
targets and 15 pairs, effects of very different strengths that partly follow GO and Reactome; in
half of the screens pairs have less than the sum of two effects, and interactions. For each margin
(standard errors that a gain on left-out folds must exceed; `all`: gp is always believed) it prints
gp's gain over perturbed-mean-own and no-change, its mean and standard error over screens, the
number of screens in which it is below 0 by more than a standard error, and those in which the
interval is below 0; and in how many folds gp says more than the mean effect, and more than no
change. Then PDS of gp, of all genes and without those targeted. With `--data` the screens are real
ones, by the default protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trust
from vcell_train_vcc.closed.baselines import MeanEffect
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.genes.features import shipped_features
from vcell.metrics import verdict
from vcell.models import Screen, belief, members
from vcell.models.scoring import each, without_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CASES = {  # energy of what is shared, what features tell, what is a perturbation's own; contexts
    "noise": (0, 0, 0, 1),
    "shared .3": (0.3, 0, 0, 1),
    "own 1": (0, 0, 1, 1),
    "told .3": (0, 0.3, 0.3, 1),
    "told 1": (0, 1, 1, 1),
    "shared 1, told 1": (1, 1, 1, 1),
    "noise, 2 contexts": (0, 0, 0, 2),
}
MARGINS = ("all", "0", "1", "1.5", "2")
N, FOLDS, CELLS, CONTROLS, HIDDEN = 300, 5, 100, 400, 6


def screens(case: str, n: int, seed: int) -> Iterator[Screen]:
    """Yield the screen of every fold."""
    shared, told, private, contexts = CASES[case]
    rng = np.random.default_rng([seed, n, 77])
    sd = np.exp(0.6 * rng.normal(size=N)) * 0.4  # of cells
    load = rng.normal(size=(HIDDEN, N)) * np.sqrt(0.4 / HIDDEN)

    def noise(rows: int, cells: int) -> np.ndarray:
        alike = rng.normal(size=(rows, HIDDEN)) @ load
        return sd * (alike + np.sqrt(0.6) * rng.normal(size=(rows, N))) / np.sqrt(cells)

    def sparse(rows: int) -> np.ndarray:
        return rng.normal(size=(rows, N)) * (rng.random((rows, N)) < 0.3) / np.sqrt(0.3)

    hidden, unit = rng.normal(size=(n, HIDDEN)), sd / np.sqrt(CELLS)
    effect = np.sqrt(shared) * sparse(1) + np.sqrt(private) * sparse(n)
    effect = unit * (effect + np.sqrt(told / HIDDEN) * hidden @ sparse(HIDDEN))
    features = hidden + 0.5 * rng.normal(size=hidden.shape) if told else rng.normal(size=(n, 6))
    features = np.concatenate([features, rng.normal(size=(n, 16))], axis=1)
    effect = np.tile(effect, (contexts, 1)) + noise(n * contexts, CELLS)
    halves = [noise(contexts, CONTROLS // 2) for _ in range(2)]
    target, context = np.tile(np.arange(n), contexts), np.repeat(np.arange(contexts), n)
    control = np.maximum(2 * sd, 0.3)
    effect[np.arange(len(effect)), target] = -0.8 * control[target]
    genes = np.array([f"g{i}" for i in range(N)])
    order = np.random.default_rng([seed, 1]).permutation(n)
    for k in range(FOLDS):
        held = np.isin(target, order[k::FOLDS])
        yield Screen(
            genes=genes,
            contexts=np.array([f"c{i}" for i in range(contexts)]),
            control=np.tile(control, (contexts, 1)).astype(np.float32),
            perturbations=genes[target],
            context=context,
            part=np.where(held, 2, 0).astype(np.int8),
            cells=np.full(len(effect), CELLS),
            delta=(effect + np.where(held[:, None], *(x[context] for x in halves))).astype("f4"),
            noise=np.full(len(effect), 0.01, np.float32),
            feature_genes=genes[:n],
            features=features.astype(np.float32),
            target_sum=1e4,
            blocks=np.array(["one", "two"]),
            widths=np.array([6, 16]),
            control_noise=np.full(contexts, np.square(sd).mean() * 2 / CONTROLS, np.float32),
        )


def sets(seed: int) -> Iterator[Screen]:
    """Yield the folds of a screen of single targets and pairs."""
    rng = np.random.default_rng([seed, 99])
    (_, genes, go), (_, known, reactome) = shipped_features()
    place = [{str(gene): i for i, gene in enumerate(one)} for one in (genes, known)]
    names = rng.choice([gene for gene in place[0] if gene in place[1]], 26, replace=False)
    blocks = [x[[at[name] for name in names]] for x, at in zip((go, reactome), place, strict=True)]
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in blocks]
    alike = sum(w * x @ x.T for w, x in zip(rng.dirichlet([1, 1]), unit, strict=True))
    alike = 0.5 * alike + 0.5 * np.eye(len(names))
    traits = np.linalg.cholesky(alike) @ rng.normal(size=(len(names), 8))
    programs = rng.standard_t(4, size=(8, N)) * (rng.random((8, N)) < 0.4)
    each_gene = traits * np.exp(-0.35 * np.arange(8)) @ programs
    each_gene += rng.normal(size=each_gene.shape) * (rng.random(each_gene.shape) < 0.05)
    each_gene *= np.exp(1.2 * rng.normal(size=(len(names), 1)))  # very different strengths
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    targets = [(i,) for i in range(18)] + [pairs[i] for i in rng.permutation(len(pairs))[:15]]
    effect = np.array([each_gene[list(one)].sum(axis=0) for one in targets])
    if seed % 2:
        size = np.sqrt(np.square(effect[18:]).mean(axis=1, keepdims=True))
        more = rng.normal(size=(15, N)) * (rng.random((15, N)) < 0.2) * size
        effect[18:] = rng.uniform(0.5, 1) * (effect[18:] + 0.6 * more)
    sd = np.exp(0.6 * rng.normal(size=N)) * 0.4
    level = np.square(sd).mean()
    effect *= np.sqrt(5 * level / CELLS / np.median(np.square(effect).mean(axis=1)))
    effect += sd * rng.normal(size=effect.shape) / np.sqrt(CELLS)
    halves = sd * rng.normal(size=(2, N)) / np.sqrt(CELLS / 2)
    order = rng.permutation(len(targets))
    for k in range(FOLDS):
        held = np.isin(np.arange(len(targets)), order[k::FOLDS])
        yield Screen(
            genes=np.array([f"m{i}" for i in range(N)]),
            contexts=np.array(["all"]),
            control=np.ones((1, N), np.float32),
            perturbations=np.array(["+".join(names[list(one)]) for one in targets]),
            context=np.zeros(len(targets), np.int64),
            part=np.where(held, 2, 0).astype(np.int8),
            cells=np.full(len(targets), CELLS),
            delta=(effect + halves[np.where(held, 0, 1)]).astype(np.float32),
            noise=np.full(len(targets), 3 * level / CELLS, np.float32),
            feature_genes=names,
            features=np.concatenate(blocks, axis=1).astype(np.float32),
            target_sum=1e4,
            blocks=np.array(["GO", "Reactome"]),
            widths=np.array([x.shape[1] for x in blocks]),
            control_noise=np.array([2 * level / CELLS], np.float32),
        )


def answers(screen: Screen, names: list[str]) -> dict[str, np.ndarray]:
    """Return the predictions of the baselines and of gp at each margin, with gp's shares."""
    found = {
        "mean": MeanEffect(screen, shrink=True).predict(names),
        "perturbed-mean-own": MeanEffect(screen, own=True).predict(names),
        "no-change": MeanEffect(screen, own=True, nothing=True).predict(names),
    }
    model, usual = GaussianProcess(screen), belief.ERRORS
    shares = {}
    for margin in MARGINS:
        model.beyond, model.belief = 1.0, 1.0
        if margin != "all":
            belief.ERRORS = float(margin)
            model.beyond, model.belief = model._shrinkage(model.transfer.of(model.names))
        shares[margin] = (model.beyond * model.belief > 0, model.belief > 0)
        found[margin] = model.predict(names)
    belief.ERRORS = usual
    return found | {"shares": np.array([*shares.values()])}


def real(case: str, data: Path) -> Callable[[int], list[Screen]]:
    """Return a function that measures the folds of a real screen for a seed."""
    path = next(data.glob("*/norman19_k562_3375x500.h5ad"))
    if case == "h1":
        path = next(data.glob("vcc25/H1-*.h5ad"))
    if case == "gbm":
        path = trust.glioblastoma(data, Path(tempfile.mkdtemp()))

    def folds(seed: int) -> list[Screen]:
        with contextlib.redirect_stderr(io.StringIO()):
            return trust.screens(path.resolve(), seed)

    return folds


def folds_of(case: str, n: int, data: Path | None) -> Callable[[int], Iterable[Screen]]:
    """Return the function that gives the folds of a seed; `data` is for real screens."""
    if data:
        return real(case, data)
    return sets if case == "sets" else functools.partial(screens, case, n)


def run(case: str, folds: Callable[[int], Iterable[Screen]], seeds: int) -> None:
    """Print a row for each margin."""
    told: dict[tuple[str, str], list[verdict.Difference]] = {}
    shares, pds = [], dict[str, list]()
    for seed in range(seeds):
        scores: dict[str, dict[str, list]] = {}
        held: list[str] = []
        for screen in folds(seed):
            rows = screen.rows(2)
            names = screen.perturbations[rows].tolist()
            said = answers(screen, names)
            shares.append(said.pop("shares"))
            for name, guess in said.items():
                one = scores.setdefault(name, {"pds": [], "mae": []})
                for context in np.unique(screen.context):
                    at = screen.context[rows] == context
                    target = screen.targets([names[i] for i in np.flatnonzero(at)])
                    if not at.any():
                        continue
                    values = each(guess[at], screen.delta[rows[at]], target)
                    own = screen.columns([names[i] for i in np.flatnonzero(at)])
                    rest = without_own(guess[at], screen.delta[rows[at]], own)["pds"]
                    pds.setdefault(name, []).append(np.stack([values["pds"], rest]))
                    if at.sum() == 1:  # a single perturbation has no PDS
                        values["pds"] = np.full(1, np.nan)
                    for score, some in one.items():
                        some.append(values[score])
            held += names  # rows are sorted by context, as the scores are
        gains = verdict.gains(
            {name: {s: np.concatenate(v) for s, v in one.items()} for name, one in scores.items()}
        )
        for margin in MARGINS:
            for other in ("perturbed-mean-own", "no-change"):
                apart = verdict.difference(gains[margin] - gains[other], [members(x) for x in held])
                told.setdefault((margin, other), []).append(apart)
    more = np.mean(shares, axis=0)
    for i, margin in enumerate(MARGINS):
        cells = []
        for other in ("perturbed-mean-own", "no-change"):
            some = told[margin, other]
            below = sum(one.mean < -one.error - 1e-9 for one in some)
            worse = sum(one.high < 0 for one in some)
            means = np.array([x.mean for x in some])
            error = means.std(ddof=min(1, len(means) - 1)) / np.sqrt(len(means))
            cells.append(f"{verdict.signed(means.mean())} ± {error:.4f} | {below} | {worse}")
        share = " | ".join(f"{x:.2f}" for x in more[i])
        both = " | ".join(f"{x:.3f}" for x in np.concatenate(pds[margin], axis=1).mean(axis=1))
        print(f"| {case} | {margin} | {' | '.join(cells)} | {share} | {both} |", flush=True)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--perturbations", type=int, default=40)
    parser.add_argument("--cases", nargs="+", default=[*CASES, "sets"])
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    start = time.process_time()
    print("| screen | margin | over perturbed-mean-own | < -1 SE | worse | over no-change "
          "| < -1 SE | worse | beyond mean | at all | PDS | PDS, no own genes |")  # fmt: skip
    for case in arguments.cases:
        run(case, folds_of(case, arguments.perturbations, arguments.data), arguments.seeds)
    print(f"{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
