"""Nanoseconds per key to sort genes' keys: numpy beside `vcell.kernels.radix`.

    python benchmarks/sorts.py

Keys are those of `vcell.metrics.gene_major`: bits of log1p of scaled counts above 6 bits of group.
The same 2,000,000 keys are cut into genes of several lengths; CPU time of one thread, lowest of
four.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vcell.kernels import radix

SHIFT, KEYS = 6, 2_000_000


def genes(n: int) -> np.ndarray:
    """Draw the keys of genes with `n` entries each."""
    rng = np.random.default_rng(0)
    divisor = np.exp(rng.normal(0, 0.3, 20_000)).astype(np.float32)
    found = []
    for mean in np.exp(rng.normal(0, 1.3, KEYS // n)):
        counts = np.minimum(rng.poisson(mean * rng.gamma(2, 0.5, n)) + 1, 63).astype(np.float32)
        found.append(np.log1p(counts / divisor[rng.integers(0, 20_000, n)]).view(np.uint32))
    bits = np.concatenate(found)
    keys: np.ndarray = ((bits - bits.min()) << np.uint32(SHIFT)) | rng.integers(0, 51, len(bits))
    return keys.astype(np.uint32)


def main() -> None:
    """Measure and print."""
    print(f"{'keys of a gene':>14}{'numpy':>8}{'digits':>8}")
    for n in (300, 1_500, 5_500, 15_000):
        keys = genes(n)
        first = np.arange(0, len(keys), n)
        spare = np.empty(n, np.uint32)

        def by_numpy(own: np.ndarray, n: int = n) -> None:
            own.reshape(-1, n).sort(axis=1)

        def by_digits(
            own: np.ndarray, first: np.ndarray = first, n: int = n, spare: np.ndarray = spare
        ) -> None:
            radix.sort_runs(own, first, first + n, SHIFT, 2, spare)

        costs, ends = [], []
        works: tuple[Callable[[np.ndarray], None], ...] = (by_numpy, by_digits)
        for work in works:
            spent = []
            for _ in range(5):  # the first compiles
                own = keys.copy()
                began = time.thread_time()
                work(own)
                spent.append(time.thread_time() - began)
            costs.append(min(spent) / len(keys) * 1e9)
            ends.append(own >> SHIFT)
        assert np.array_equal(*ends)
        print(f"{n:>14,}{costs[0]:8.1f}{costs[1]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
