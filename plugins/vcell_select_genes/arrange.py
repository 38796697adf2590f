"""Order genes so that every phase has its share of every group.

Phases are filled in turn. In each, every group, in order of importance, adds its best genes up to
its quota scaled to the phase. Genes already added by another group count towards the quota. Highly
variable genes fill the rest.
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
    """A group of genes, best first, with the number of them to choose.

    `quota` counts its genes among all those chosen; `ALL` puts every one into the first phase.
    """

    name: str
    genes: NDArray[np.int64]
    quota: float


@dataclass(frozen=True)
class Arrangement:
    """The chosen genes in order, and the phase (from 0) in which each was added."""

    genes: NDArray[np.int64]
    phase: NDArray[np.int64]
    phases: tuple[int, ...]


def arrange(
    groups: Sequence[Group], filler: NDArray[np.int64], n_genes: int, phases: Sequence[int]
) -> Arrangement:
    """Choose up to `n_genes` genes, most important first."""
    sizes = sorted({size for size in phases if size < n_genes} | {n_genes})
    chosen: dict[int, int] = {}  # gene to phase, in order
    for phase, size in enumerate(sizes):
        best = [group.genes[: _quota_at(group, size, n_genes)] for group in groups]
        for gene in np.concatenate([*best, filler]).tolist():
            if len(chosen) >= size:
                break
            chosen.setdefault(gene, phase)
    return Arrangement(
        np.fromiter(chosen, np.int64, len(chosen)),
        np.fromiter(chosen.values(), np.int64, len(chosen)),
        tuple(sizes),
    )


def _quota_at(group: Group, size: int, n_genes: int) -> int:
    """Return how many of a group's best genes belong among the first `size`."""
    if group.quota == ALL:
        return len(group.genes)
    return math.ceil(group.quota * size / n_genes)


def parse_quotas(texts: Sequence[str], names: Sequence[str], n_genes: int) -> dict[str, float]:
    """Parse quotas such as ``tf=400``, ``tf=10%`` and ``tf=all``."""
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
    """Return the default number of genes of a group.

    `urgent` groups (targets and the user's own) are complete from the first phase on. Others get
    their share, or all their genes spread over the phases.
    """
    if urgent:
        return ALL
    return n_genes * SHARES[name] if name in SHARES else float(size)
