"""Perturbations as sets of target genes, and what a screen knows of them.

P perturbations, M targets of each at most, N genes, C contexts, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen


class Targets:
    """The set view of a screen; one that says nothing of contexts has one, ``all``."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        whole: Any = screen
        n = len(screen.perturbations)
        self.contexts: NDArray[np.str_] = getattr(whole, "contexts", np.array(["all"]))
        self.context: NDArray[np.int64] = getattr(whole, "context", np.zeros(n, np.int64))
        self.control = np.atleast_2d(screen.control)  # (C, N)
        self.column = {str(gene): i for i, gene in enumerate(screen.genes)}
        named = getattr(whole, "feature_genes", screen.genes)
        self.row = {str(gene): i for i, gene in enumerate(named)}
        self.has: NDArray[np.bool_] = np.asarray(np.isfinite(screen.features).all(axis=1))

    def members(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the targets of each perturbation: A+B has two."""
        if hasattr(self.screen, "members"):
            found: list[tuple[str, ...]] = self.screen.members(names)
            return found
        return [tuple(str(name).split("+")) for name in names]

    def columns(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the genes (P, M) of the targets, -1 where they are none of those measured."""
        members = self.members(names)
        found = np.full((len(members), max(map(len, members), default=1)), -1, np.int64)
        for i, one in enumerate(members):
            found[i, : len(one)] = [self.column.get(gene, -1) for gene in one]
        return found

    def known(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Say of each perturbation whether all of its targets have features."""
        return np.array(
            [all(self._known(gene) for gene in one) for one in self.members(names)], np.bool_
        )

    def pooled(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return (P, F): the sum of the targets' features; a target without any adds nothing."""
        features = self.screen.features
        pooled = np.zeros((len(names), features.shape[1]), np.float32)
        for i, one in enumerate(self.members(names)):
            for gene in one:
                if self._known(gene):
                    pooled[i] += features[self.row[gene]]
        return pooled

    def _known(self, gene: str) -> bool:
        return gene in self.row and bool(self.has[self.row[gene]])
