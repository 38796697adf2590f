"""Time and memory of gp on a screen of many perturbations.

    OMP_NUM_THREADS=1 python benchmarks/gp_scale.py --perturbations 10000 --genes 10000

Effects are sums of twenty hidden directions and noise. One block of features is informative, two
are random. A twentieth of the perturbations is held out.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.models import Screen


def screen(n: int, genes: int) -> Screen:
    """Make a synthetic screen."""
    rng = np.random.default_rng(0)
    names = np.array([f"P{i}" for i in range(n)])
    hidden = rng.normal(size=(n, 20)).astype(np.float32)
    delta = hidden @ rng.normal(size=(20, genes)).astype(np.float32) * np.float32(0.05)
    for start in range(0, n, 500):
        part = delta[start : start + 500]
        part += rng.normal(size=part.shape).astype(np.float32) * np.float32(0.2)
    telling = hidden + rng.normal(size=hidden.shape).astype(np.float32)
    features = np.concatenate([telling, rng.normal(size=(n, 124)).astype(np.float32)], axis=1)
    return Screen(
        genes=np.array([f"g{i}" for i in range(genes)]),
        contexts=np.array(["all"]),
        control=np.ones((1, genes), np.float32),
        perturbations=names,
        context=np.zeros(n, np.int64),
        part=np.where(np.arange(n) < n // 20, 2, 0).astype(np.int8),
        cells=np.full(n, 50),
        delta=delta,
        noise=np.full(n, 0.01, np.float32),
        feature_genes=names,
        features=features,
        target_sum=1e4,
        blocks=np.array(["telling", "random", "random too"]),
        widths=np.array([20, 64, 60]),
    )


def main() -> None:
    """Fit, predict, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perturbations", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=10_000)
    arguments = parser.parse_args()
    made = screen(arguments.perturbations, arguments.genes)
    begun = time.process_time()
    fitted = GaussianProcess(made)
    fit = time.process_time() - begun
    rows = made.rows(2)
    guess = fitted.predict(made.perturbations[rows].tolist())
    predict = time.process_time() - begun - fit
    right = np.mean([np.corrcoef(a, made.delta[r])[0, 1] for a, r in zip(guess, rows, strict=True)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{arguments.perturbations:,} perturbations x {arguments.genes:,} genes: fit {fit:.0f} CPU "
        f"s, predict {len(rows):,} {predict:.1f} s, peak {peak:.1f} GB, correlation {right:.2f}"
    )
    print("weights: " + ", ".join(f"{name} {w:.2f}" for name, w in fitted.blocks.items()))


if __name__ == "__main__":
    main()
