"""The input of a perturbation model: the effects of a screen, and features of genes.

Shapes: P perturbations, N genes, C contexts, F features of a gene.
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.genes.names import GeneIndex, approved
from vcell.screen.split import TEST, TRAIN, VALIDATION
from vcell.screen.targets import members

SCREEN = "screen.npz"  # in the run directory
_LATER = (  # fields that older runs do not have
    *("blocks", "widths", "halves", "control_noise"),
    *("prior_sources", "prior_source", "prior_names", "prior_effects"),
    *("graph_names", "graph_sizes", "graph_ends", "graph_weights"),
)


@dataclass(frozen=True)
class Screen:
    """What a perturbation model learns from: effects of perturbations, features of genes.

    A row is a perturbation in a context, such as a cell type; most screens have one context. A
    perturbation is a set of target genes: ``A+B`` has two.

    Parameters
    ----------
    genes
        (N,) names, in the order of the file.
    contexts
        (C,) names; ``all`` where there is one.
    control
        (C, N) mean log1p expression of each context's controls.
    perturbations, context, part, cells
        (P,) names; numbers of contexts; `Part` as a number; numbers of cells.
    delta
        (P, N) change of the mean log1p expression against controls of the same batches. Rows of
        held-out perturbations are for scoring and must not be learnt from.
    noise
        (P,) what sampling cells adds to the variance of a row of `delta`, averaged over genes.
    feature_genes, features
        (M,) genes that have features, measured or not, and (M, F) their finite values.
    target_sum
        Counts were scaled to this many per cell before log1p; NaN if the file held log1p values.
    blocks, widths
        (B,) sources of features, and how many columns each has, in this order.
    halves
        (2, T, N) effects of two halves of the cells of each held-out row, in the order of the rows,
        each against its own controls: their agreement is the best score that can be reached.
    control_noise
        (C,) sampling variance, averaged over genes, of the mean of the controls that all learnt
        effects of a context were compared with; 0 where scored effects share these controls.
    prior_sources, prior_source, prior_names, prior_effects
        (S,) other screens; (K,) the screen and the name of each of their perturbations; and (K, N)
        the effects there, on the genes of this screen.
    graph_names, graph_sizes, graph_ends, graph_weights
        (G,) graphs and how many edges each has between the genes; (2, E) and (E,) these, each pair
        once, graph after graph; see `vcell.screen.graphs`.
    """

    genes: NDArray[np.str_]
    contexts: NDArray[np.str_]
    control: NDArray[np.float32]
    perturbations: NDArray[np.str_]
    context: NDArray[np.int64]
    part: NDArray[np.int8]
    cells: NDArray[np.int64]
    delta: NDArray[np.float32]
    noise: NDArray[np.float32]
    feature_genes: NDArray[np.str_]
    features: NDArray[np.float32]
    target_sum: float
    blocks: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    widths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    halves: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 0, 0), np.float32))
    control_noise: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    prior_sources: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    prior_source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    prior_names: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    prior_effects: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    graph_names: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    graph_sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    graph_ends: NDArray[np.int32] = field(default_factory=lambda: np.zeros((2, 0), np.int32))
    graph_weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @functools.cached_property
    def gene_number(self) -> dict[str, int]:
        """Index of each gene by name."""
        return {str(gene): i for i, gene in enumerate(self.genes)}

    @functools.cached_property
    def feature_row(self) -> dict[str, int]:
        """Row of `features` by the gene's name."""
        return {str(gene): i for i, gene in enumerate(self.feature_genes)}

    def block_columns(self) -> dict[str, slice]:
        """Return which columns of `features` each source has; older runs have one source."""
        if not len(self.blocks):
            return {"features": slice(0, self.features.shape[1])} if self.features.size else {}
        ends = np.cumsum(self.widths)
        return {
            f"{name}" if list(self.blocks).count(name) == 1 else f"{name} ({i + 1})": slice(
                int(end - width), int(end)
            )
            for i, (name, width, end) in enumerate(zip(self.blocks, self.widths, ends, strict=True))
        }

    def feature_number(self, gene: str) -> int | None:
        """Return the row of `features` of a gene by any of its names, or None."""
        found = self.feature_row.get(gene)
        if found is None:
            symbol = approved(gene)
            found = self._approved.get(symbol) if symbol else None
        return found

    @functools.cached_property
    def _approved(self) -> dict[str, int]:
        """Row of `features` by HGNC's approved symbol."""
        rows = reversed(list(self.feature_row.items()))
        return {symbol: row for gene, row in rows if (symbol := approved(gene))}

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the indices of the rows of one part."""
        return np.flatnonzero(self.part == part)

    def settled(self) -> Screen:
        """Return the screen to answer from, whose validation rows are training rows as well.

        For models that are refitted whenever they are loaded, such as closed forms. Do not score
        the result on the validation rows.
        """
        return replace(
            self, part=np.where(self.part == VALIDATION, TRAIN, self.part).astype(self.part.dtype)
        )

    def denoised(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return effects (R, N), with likely noise of the controls subtracted from learnt rows.

        All learnt effects of a context were compared with the same control cells, so the sampling
        noise of these cells is in the effects' mean. Its variance is known, and that share of the
        mean's square is removed (empirical Bayes). The mean is that of the training rows.
        """
        found = self.delta[rows].astype(np.float64)
        for context, noise in enumerate(self.control_noise):
            learnt = (self.part == TRAIN) & (self.context == context)
            if not noise or not learnt.any():
                continue
            mean = self.delta.mean(axis=0, dtype=np.float64, where=learnt[:, None])
            likely = mean * min(float(noise) / max(np.square(mean).mean(), 1e-30), 1.0)
            own = (self.part[rows] != TEST) & (self.context[rows] == context)
            for row in np.flatnonzero(own):  # row by row: no copy of the matrix
                found[row] -= likely
        return found

    def names(self, rows: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return the names of perturbation and context of some rows."""
        return self.perturbations[rows].tolist(), self.contexts[self.context[rows]].tolist()

    def members(self, perturbations: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the target genes of each perturbation."""
        return [members(str(name)) for name in perturbations]

    def columns(self, perturbations: Sequence[str]) -> NDArray[np.int64]:
        """Return the indices (P, targets) of the target genes, -1 for those not measured.

        A target may have another name than the measured gene.
        """
        sets = self.members(perturbations)
        named = list(dict.fromkeys(gene for genes in sets for gene in genes))
        place = dict(zip(named, self._index.match(named).index.tolist(), strict=True))
        found = np.full((len(sets), max(map(len, sets), default=1)), -1, np.int64)
        for row, genes in zip(found, sets, strict=True):
            row[: len(genes)] = [place[gene] for gene in genes]
        return found

    @functools.cached_property
    def _index(self) -> GeneIndex:
        return GeneIndex(self.genes)

    def targets(self, perturbations: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each perturbation's target gene, -1 where it has none or several."""
        several = np.array([len(genes) != 1 for genes in self.members(perturbations)], np.bool_)
        return np.where(several, -1, self.columns(perturbations)[:, 0])

    def known(self, perturbations: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each perturbation whether all its targets have features."""
        return np.array(
            [
                all(self.feature_number(gene) is not None for gene in one)
                for one in self.members(perturbations)
            ],
            np.bool_,
        )

    def pooled(self, perturbations: Sequence[str]) -> NDArray[np.float32]:
        """Return (P, F): the sum of the targets' features; a target without any adds nothing."""
        found = np.zeros((len(perturbations), self.features.shape[1]), np.float32)
        for i, genes in enumerate(self.members(perturbations)):
            known = [row for gene in genes if (row := self.feature_number(gene)) is not None]
            found[i] = self.features[known].sum(axis=0)
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as .npz, arrays only."""
        with Path(path).open("wb") as file:  # savez would add .npz to a bare name
            np.savez(file, **{one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; a UserError where it is not there or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                values: dict[str, Any] = {
                    one.name: file[one.name]
                    for one in fields(cls)
                    if one.name in file.files or one.name not in _LATER
                }
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UserError(f"{path} is damaged", hint="train again: vcell train-vcc") from None
        return cls(**values | {"target_sum": float(values["target_sum"])})
