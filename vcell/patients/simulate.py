"""Simulated patients with a known truth, for tests and to show the limits of the classifier.

An outcome changes three things by given amounts: the frequency of some cell types, the state of one
type (a programme of genes), and the expression of ligands and receptors. Patients differ beyond
that in proportions and expression. It is not a model of any disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Patients:
    """What to make up.

    Attributes
    ----------
    shift
        By how much the outcome moves the log proportions of two types.
    state
        By how much it moves the log expression of a program of genes of the third type.
    talk
        The same for ligands of the first type and receptors of the second.
    spread
        Standard deviation of log proportions between patients.
    """

    patients: int = 60
    cells: int = 100
    types: int = 6
    genes: int = 600
    pairs: int = 10
    shift: float = 0.6
    state: float = 0.8
    talk: float = 0.8
    spread: float = 0.5
    library: float = 800.0
    seed: int = 0


def made_up(wanted: Patients) -> tuple[NDArray[np.int32], dict[str, list[str]], list[str], Any]:
    """Return counts (cells, genes), obs columns, names of genes, and ligands with receptors."""
    rng = np.random.default_rng((wanted.seed, 0x9A71))
    g, k = wanted.genes, wanted.types
    base = rng.normal(0, 1.2, g)
    change = rng.normal(0, 1.5, (k, g)) * (rng.random((k, g)) < 0.25)
    special = rng.permutation(g)
    ligands, receptors = special[: wanted.pairs], special[wanted.pairs : 2 * wanted.pairs]
    program = special[2 * wanted.pairs : 2 * wanted.pairs + max(g // 20, 3)]
    mean = rng.normal(0, 0.5, k)
    counts, obs = [], {name: list[str]() for name in ("patient", "outcome", "cell_type", "batch")}
    for p in range(wanted.patients):
        sick = p % 2
        logits = mean + rng.normal(0, wanted.spread, k)
        logits[0] += sick * wanted.shift
        logits[1] -= sick * wanted.shift
        share = np.exp(logits) / np.exp(logits).sum()
        kind = rng.choice(k, wanted.cells, p=share)
        log_rate = base + change + rng.normal(0, 0.15, g)
        if sick:
            log_rate[2, program] += wanted.state
            log_rate[0, ligands] += wanted.talk
            log_rate[1, receptors] += wanted.talk
        rate = np.exp(log_rate[kind])
        size = rng.gamma(6, wanted.library / 6, (wanted.cells, 1))
        rate *= size / rate.sum(1, keepdims=True)
        counts.append(rng.poisson(rng.gamma(3, rate / 3)).astype(np.int32))
        obs["patient"] += [f"P{p:03d}"] * wanted.cells
        obs["outcome"] += [("well", "ill")[sick]] * wanted.cells
        obs["batch"] += [f"b{p // 2 % 3}"] * wanted.cells
        obs["cell_type"] += [f"type-{i}" for i in kind]
    names = [f"gene{i}" for i in range(g)]
    pairs = [(names[a], names[b]) for a, b in zip(ligands, receptors, strict=True)]
    return np.concatenate(counts), obs, names, pairs


def write(wanted: Patients, cells: Path, pairs: Path | None = None) -> None:
    """Write made-up patients as an .h5ad, and the pairs as a .csv."""
    from scipy import sparse

    from vcell import outputs
    from vcell.data import CellWriter

    counts, obs, genes, both = made_up(wanted)
    values = {name: sorted(set(column)) for name, column in obs.items()}
    codes = {
        name: np.array([values[name].index(v) for v in column], np.int32)
        for name, column in obs.items()
    }
    with CellWriter(cells, genes, obs=values) as writer:
        matrix = sparse.csr_matrix(counts.astype(np.float32))
        writer.append(matrix, codes, [f"cell{i}" for i in range(len(counts))])
    if pairs is not None:
        rows = "".join(f"{a},{b}\n" for a, b in both)
        outputs.write_text(pairs, f"ligand,receptor\n{rows}")
