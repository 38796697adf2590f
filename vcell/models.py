"""Perturbation models by name: what train-vcc trains, predict asks, and third parties may add.

A model is an object announced in the entry-point group ``vcell.models`` that can `fit` the screen
of a run directory and `load` from it what it learnt, as a `Predictor`. Nobody else needs to know
how it works: predict and evaluate find it by the name that the run remembers.

    [project.entry-points."vcell.models"]
    my-model = "my_package:model"

Shapes: P perturbations, N genes, C contexts, F features of a gene.
"""

from __future__ import annotations

import csv
import functools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from vcell.runs import Run

GROUP = "vcell.models"
SCREEN = "screen.npz"  # in the run directory
_CONTROL_PARTS = ("ctrl", "control", "non-targeting", "nt", "neg")
_NAME_COLUMNS = ("target_gene", "perturbation", "gene")
_GENE_COLUMNS = ("gene", "gene_name", "symbol", "gene_symbol")


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
        (P,) names; contexts by number; 0 to learn from, 1 to choose the model by, 2 held out;
        cells of each.
    delta
        (P, N) change of the mean log1p expression against controls of the same batches; rows of
        held-out perturbations are there to score with and must not be learnt from.
    noise
        (P,) what sampling cells adds to the variance of a row of `delta`, averaged over genes.
    feature_genes, features
        (M,) genes of which something is known, measured or not, and (M, F) what that is, finite.
    target_sum
        Counts were scaled to this many per cell before log1p; NaN if the file held log1p values.
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

    @functools.cached_property
    def gene_number(self) -> dict[str, int]:
        """Number of each gene by name."""
        return {str(gene): i for i, gene in enumerate(self.genes)}

    @functools.cached_property
    def feature_row(self) -> dict[str, int]:
        """Row of `features` by the gene's name."""
        return {str(gene): i for i, gene in enumerate(self.feature_genes)}

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the rows of one part."""
        return np.flatnonzero(self.part == part)

    def settled(self) -> Screen:
        """Return the screen to answer from: what chose the model is there to learn from as well.

        For what is fitted anew whenever it is loaded, such as closed forms; not to be scored on
        what chose the model.
        """
        return replace(self, part=np.where(self.part == 1, 0, self.part).astype(self.part.dtype))

    def names(self, rows: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return the perturbations and the contexts of some rows."""
        return self.perturbations[rows].tolist(), self.contexts[self.context[rows]].tolist()

    def members(self, perturbations: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the target genes of each perturbation."""
        return [members(str(name)) for name in perturbations]

    def columns(self, perturbations: Sequence[str]) -> NDArray[np.int64]:
        """Return the genes (P, targets) of the targets, -1 for one that is not measured."""
        sets = self.members(perturbations)
        found = np.full((len(sets), max(map(len, sets), default=1)), -1, np.int64)
        for row, genes in zip(found, sets, strict=True):
            row[: len(genes)] = [self.gene_number.get(gene, -1) for gene in genes]
        return found

    def targets(self, perturbations: Sequence[str]) -> NDArray[np.int64]:
        """Return the gene number of each perturbation's target, -1 for none and for several."""
        return np.array([self.gene_number.get(str(name), -1) for name in perturbations], np.int64)

    def known(self, perturbations: Sequence[str]) -> NDArray[np.bool_]:
        """Say of each perturbation whether all of its targets have features."""
        return np.array(
            [all(gene in self.feature_row for gene in one) for one in self.members(perturbations)],
            np.bool_,
        )

    def pooled(self, perturbations: Sequence[str]) -> NDArray[np.float32]:
        """Return (P, F): the sum of the targets' features; a target without any adds nothing."""
        found = np.zeros((len(perturbations), self.features.shape[1]), np.float32)
        for i, genes in enumerate(self.members(perturbations)):
            known = [self.feature_row[gene] for gene in genes if gene in self.feature_row]
            found[i] = self.features[known].sum(axis=0)
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as .npz, arrays only."""
        with Path(path).open("wb") as file:  # savez would add .npz to a bare name
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; a UserError where it is not there or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                values: dict[str, Any] = {field.name: file[field.name] for field in fields(cls)}
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UserError(f"{path} is damaged", hint="train anew: vcell train-vcc") from None
        return cls(**values | {"target_sum": float(values["target_sum"])})


def members(perturbation: str) -> tuple[str, ...]:
    """Return the target genes of a perturbation's name: A+B has two, A+ctrl one."""
    parts = dict.fromkeys(part.strip() for part in perturbation.split("+"))
    return tuple(part for part in parts if part and part.lower() not in _CONTROL_PARTS)


class Predictor(Protocol):
    """A trained model."""

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return (P, N): the change of the mean log1p expression; NaN rows where it cannot say.

        `contexts` names the context of each; without it, the screen's first is meant.
        """


@runtime_checkable
class Model(Protocol):
    """One kind of model, by whichever distribution brings it."""

    summary: str

    def fit(self, run: Run, screen: Screen) -> bool:
        """Learn the screen, on every process of the run; False if it was asked to end early."""

    def load(self, run: Run, screen: Screen) -> Predictor:
        """Return what a run has learnt.

        `screen` is the run's own, or that `settled`, to which closed forms are then fitted anew.
        """


def names() -> list[str]:
    """List the announced models; nothing is imported."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def get(name: str) -> Model:
    """Import one model by name."""
    points = [point for point in metadata.entry_points(group=GROUP) if point.name == name]
    if not points:
        known = ", ".join(names()) or "none are installed"
        raise UserError(
            f"{name!r} is not a model{did_you_mean(name, names())}", hint=f"models: {known}"
        )
    loaded = points[0].load()
    if not isinstance(loaded, Model):
        raise UserError(
            f"the model {name!r} ({points[0].value}) lacks fit or load",
            hint="see vcell.models for what a model must have",
        )
    return loaded


def read_perturbations(path: Path) -> dict[str, int | None]:
    """Read perturbations and the cells wanted of each, where the file says so.

    A CSV with a target_gene column and perhaps n_cells (as pert_counts_Validation.csv), or one name
    a line.
    """
    rows, column = _named_rows(path, _NAME_COLUMNS)
    head = [cell.strip() for cell in rows[0][1]]
    counts = head.index("n_cells") if "n_cells" in head else None
    found: dict[str, int | None] = {}
    for line, row in rows[0 if column is None else 1 :]:
        if len(row) < len(head):
            raise UserError(f"{path}:{line}: {len(row)} columns, the head has {len(head)}")
        found[row[column or 0].strip()] = (
            None if counts is None else _count(row[counts], path, line)
        )
    return found


def read_genes(path: Path) -> list[str]:
    """Read gene names: a CSV with a gene column (as select-genes writes), or one name a line."""
    rows, column = _named_rows(path, _GENE_COLUMNS)
    return [row[column or 0].strip() for _, row in rows[0 if column is None else 1 :]]


def _named_rows(
    path: Path, columns: tuple[str, ...]
) -> tuple[list[tuple[int, list[str]]], int | None]:
    """Return the numbered rows of a CSV and which of `columns` it has; None: one name a line."""
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file of names") from None
    rows = [(i, row) for i, row in enumerate(csv.reader(text), start=1) if any(row)]
    if not rows:
        raise UserError(f"{path} is empty")
    head = [cell.strip() for cell in rows[0][1]]
    column = next((head.index(name) for name in columns if name in head), None)
    if column is None and len(head) > 1:
        raise UserError(f"{path}:1: no column {' or '.join(columns)} in {', '.join(head)}")
    return rows, column


def _count(text: str, path: Path, line: int) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise UserError(f"{path}:{line}: n_cells is {text.strip()!r}, not a number of cells")
    return int(text)
