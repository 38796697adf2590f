"""Time the scores computed by a trainer at every epoch, and compare their DES with the full one.

    python benchmarks/quick.py

Simulated: 50 perturbations x 60 cells and 1,500 controls, 5,000 genes, 128 controls sampled. The
prediction is the mean of other cells with the same true effects. CPU seconds, one thread, second
call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from vcell.data import Block
from vcell.metrics import significance, vcc2025
from vcell.metrics.groups import Grouped, summarise
from vcell.metrics.quick import DES, Truth

P, G, EACH, CONTROLS, SAMPLE = 50, 5000, 60, 1500, 128
GROUP = np.repeat(np.arange(P + 1), [CONTROLS] + [EACH] * P).astype(np.int32)


def cells(seed: int) -> sp.csr_matrix:
    """Draw one screen as log1p; the true effects are the same for every seed."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    rate = truth.gamma(0.5, 1.2, G)
    effect = truth.normal(0, 0.6, (P + 1, G)) * (truth.random((P + 1, G)) < 0.1)
    effect[0] = 0
    parts = []
    for g in range(P + 1):
        x = rng.poisson(rate * np.exp(effect[g]), ((g == GROUP).sum(), G))
        parts.append(sp.csr_matrix(np.log1p(x / x.sum(axis=1, keepdims=True) * 3000), dtype="f4"))
    return sp.vstack(parts).tocsr()


def grouped(x: sp.csr_matrix) -> Grouped:
    """Sum and rank a screen."""
    indptr, indices = x.indptr.astype(np.int64), x.indices.astype(np.int32)
    block = Block(0, np.arange(x.shape[0]), indptr, indices, x.data, G)
    return summarise(lambda: [block], GROUP, P + 1, G)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a second call, and its CPU seconds."""
    work()
    start = time.process_time()
    return work(), time.process_time() - start


def main() -> None:
    """Print times and the two scores."""
    real, pred = cells(1), cells(2)
    names, genes = [f"G{i}" for i in range(P)], [f"G{i}" for i in range(G)]
    found, guess = grouped(real), grouped(pred)
    drawn = np.random.default_rng(0).choice(CONTROLS, SAMPLE, replace=False)
    truth, made = timed(lambda: Truth.of(found, names, genes, real[drawn]))
    means = guess.means[1:]
    some = np.concatenate([np.flatnonzero(p + 1 == GROUP)[:32] for p in range(P)])
    few, group = pred[some].toarray(), GROUP[some] - 1
    (scores, moved), (_, tested) = (
        timed(lambda: truth.score(means)), timed(lambda: truth.score(means, few, group)),
    )  # fmt: skip
    whole = significance.differential(guess, np.array(["", *names]), np.array(genes))
    exact = vcc2025.overlap(truth.calls, vcc2025.Calls(whole)).mean()
    print(f"truth made once {made:.3f} s, score(means) {moved:.3f} s, with cells {tested:.3f} s")
    print(f"DES {scores[DES]:.3f} from {SAMPLE} controls, {exact:.3f} from all predicted cells")


if __name__ == "__main__":
    main()
