"""Simulated patients with a known truth, for tests and to explore the limits of the classifier.

An outcome changes three things by given amounts: the frequency of some cell types, the state of one
type (a programme of genes), and the expression of ligands and receptors. Patients also differ in
proportions and expression. This is not a model of a disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PatientDesign:
    """The design of simulated patients.

    Attributes
    ----------
    shift
        Shift of the log proportions of two types by the outcome.
    state
        Shift of the log expression of a programme of genes in the third type.
    talk
        Shift of the log expression of ligands in the first type and receptors in the second.
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


def made_up(
    design: PatientDesign,
) -> tuple[NDArray[np.int32], dict[str, list[str]], list[str], Any]:
    """Return counts (cells, genes), obs columns, names of genes, and ligands with receptors."""
    rng = np.random.default_rng((design.seed, 0x9A71))
    g, k = design.genes, design.types
    base = rng.normal(0, 1.2, g)
    change = rng.normal(0, 1.5, (k, g)) * (rng.random((k, g)) < 0.25)
    special = rng.permutation(g)
    ligands, receptors = special[: design.pairs], special[design.pairs : 2 * design.pairs]
    program = special[2 * design.pairs : 2 * design.pairs + max(g // 20, 3)]
    mean = rng.normal(0, 0.5, k)
    counts, obs = [], {name: list[str]() for name in ("patient", "outcome", "cell_type", "batch")}
    for p in range(design.patients):
        ill = p % 2
        logits = mean + rng.normal(0, design.spread, k)
        logits[0] += ill * design.shift
        logits[1] -= ill * design.shift
        share = np.exp(logits) / np.exp(logits).sum()
        kind = rng.choice(k, design.cells, p=share)
        log_rate = base + change + rng.normal(0, 0.15, g)
        if ill:
            log_rate[2, program] += design.state
            log_rate[0, ligands] += design.talk
            log_rate[1, receptors] += design.talk
        rate = np.exp(log_rate[kind])
        size = rng.gamma(6, design.library / 6, (design.cells, 1))
        rate *= size / rate.sum(1, keepdims=True)
        counts.append(rng.poisson(rng.gamma(3, rate / 3)).astype(np.int32))
        obs["patient"] += [f"P{p:03d}"] * design.cells
        obs["outcome"] += [("well", "ill")[ill]] * design.cells
        obs["batch"] += [f"b{p // 2 % 3}"] * design.cells
        obs["cell_type"] += [f"type-{i}" for i in kind]
    names = [f"gene{i}" for i in range(g)]
    pairs = [(names[a], names[b]) for a, b in zip(ligands, receptors, strict=True)]
    return np.concatenate(counts), obs, names, pairs


def write(design: PatientDesign, cells: Path, pairs: Path | None = None) -> None:
    """Write simulated patients as an .h5ad, and the pairs as a .csv."""
    from scipy import sparse

    from vcell import outputs
    from vcell.data import CellWriter

    counts, obs, genes, both = made_up(design)
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
