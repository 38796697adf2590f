"""Order genes so that every phase has its share of every group.

Phases are filled one after another. In each, the groups are visited from the most to the least
important, and each adds its best genes, up to its quota scaled to the phase; genes that another
group has added count too. The remaining places go to highly variable genes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError

SHARES = {"responsive": 0.40, "tf": 0.15, "metabolic": 0.15, "hvg": 0.25}  # of n_genes
ALL = math.inf


@dataclass(frozen=True)
class Group:
    """Genes that belong together, the best first, and how many of them are wanted.

    `quota` counts genes among all that are chosen; `ALL` wants every one in the first phase.
    """

    name: str
    genes: NDArray[np.int64]
    quota: float


@dataclass(frozen=True)
class Arrangement:
    """The chosen genes in order, and the phase (from 0) that each joined in."""

    genes: NDArray[np.int64]
    phase: NDArray[np.int64]
    phases: tuple[int, ...]


def arrange(
    groups: Sequence[Group], filler: NDArray[np.int64], n_genes: int, phases: Sequence[int]
) -> Arrangement:
    """Choose up to `n_genes` genes, the most important first."""
    sizes = sorted({size for size in phases if size < n_genes} | {n_genes})
    chosen: dict[int, int] = {}  # gene to phase, in order
    for phase, size in enumerate(sizes):
        best = [group.genes[: _wanted(group, size, n_genes)] for group in groups]
        for gene in np.concatenate([*best, filler]).tolist():
            if len(chosen) >= size:
                break
            chosen.setdefault(gene, phase)
    return Arrangement(
        np.fromiter(chosen, np.int64, len(chosen)),
        np.fromiter(chosen.values(), np.int64, len(chosen)),
        tuple(sizes),
    )


def _wanted(group: Group, size: int, n_genes: int) -> int:
    """Return how many of a group's best genes belong among the first `size`."""
    if group.quota == ALL:
        return len(group.genes)
    return math.ceil(group.quota * size / n_genes)


def parse_quotas(texts: Sequence[str], names: Sequence[str], n_genes: int) -> dict[str, float]:
    """Read quotas such as ``tf=400``, ``tf=10%`` and ``tf=all``."""
    quotas: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if name not in names:
            raise UserError(
                f"--quotas {text}: {name!r} is not one of the groups", hint=", ".join(names)
            )
        try:
            if amount == "all":
                quotas[name] = ALL
            elif amount.endswith("%"):
                quotas[name] = n_genes * float(amount[:-1]) / 100
            else:
                quotas[name] = float(int(amount))
        except ValueError:
            quotas[name] = -1.0
        if not quotas[name] >= 0:
            raise UserError(f"--quotas {text}: a quota is a number, a percentage or 'all'")
    return quotas


def default_quota(name: str, size: int, n_genes: int, *, urgent: bool) -> float:
    """Return how many genes of a group are wanted where nothing is said.

    Targets and a user's own groups are `urgent`: all of them, from the first phase on. Others get
    their share, or all of them spread over the phases.
    """
    if urgent:
        return ALL
    return n_genes * SHARES[name] if name in SHARES else float(size)
