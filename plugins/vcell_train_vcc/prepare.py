"""From cells to the screen a model learns: effects of perturbations, features of their targets.

Effects are differences to controls of the same batch (and cell type). Memory is perturbations x
genes; cells are streamed. P perturbations, N genes, C contexts (batch x cell type).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.models import Screen, read_genes, read_perturbations
from vcell_train_vcc import features
from vcell_train_vcc.split import TEST, TRAIN, split

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.data.log_cells import LogCells
    from vcell_train_vcc import TrainVcc

_FEATURE_CELLS = 50_000  # enough for loadings; more would only cost time


class Columns:
    """The label codes of every cell: perturbation (control apart) and context."""

    def __init__(
        self,
        perturbation: NDArray[np.int64],
        names: list[str],
        control: NDArray[np.bool_],
        context: NDArray[np.int64],
    ) -> None:
        self.perturbation, self.names = perturbation, names
        self.control, self.context = control, context

    @classmethod
    def read(cls, source: Any, labels: Any) -> Columns:
        """Read the columns that `labels` names."""
        column = source.obs(labels.perturbation_column)
        categories = [str(name) for name in column.categories]
        codes = np.asarray(column.codes, np.int64)
        control = codes == categories.index(labels.control)
        context = np.zeros(len(codes), np.int64)
        for name in (labels.batch_column, labels.cell_type_column):
            if name is not None:
                other = np.asarray(source.obs(name).codes, np.int64) + 1  # missing: its own context
                context = context * (other.max() + 1) + other
        _, context = np.unique(context, return_inverse=True)
        return cls(np.where(control, -1, codes), categories, control, context)


def screen_of(cells: LogCells, columns: Columns, config: TrainVcc) -> Screen:
    """Measure every perturbation's effect and every gene's features, with the parts held apart."""
    names, code = _enough_cells(columns, config.min_cells)
    test = list(read_perturbations(config.held_out)) if config.held_out else None
    part = split(
        names,
        test=test,
        test_share=config.test_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    console.say(
        f"{len(names)} perturbations: {(part == TRAIN).sum()} to learn from, "
        f"{(part == 1).sum()} to choose the model by, {(part == TEST).sum()} held out"
    )
    delta, control, count = effects(cells, code, columns, len(names))
    genes = cells.source.genes
    number = {str(gene): i for i, gene in enumerate(genes)}
    target = np.array([number.get(name, -1) for name in names])
    found = _features(cells, columns, code, part, delta, target, config)
    screen = Screen(
        genes=np.asarray(genes, dtype=np.str_),
        control=control.astype(np.float32),
        perturbations=np.array(names),
        part=part,
        cells=count,
        delta=delta.astype(np.float32),
        features=found,
        target_sum=cells.target_sum,
    )
    return _only_known(screen)


def _enough_cells(columns: Columns, fewest: int) -> tuple[list[str], NDArray[np.int64]]:
    """Keep perturbations of at least `fewest` cells; returns names and the cells' codes of them."""
    count = np.bincount(
        columns.perturbation[columns.perturbation >= 0], minlength=len(columns.names)
    )
    kept = np.flatnonzero(count >= fewest)
    small = [columns.names[i] for i in np.flatnonzero((count > 0) & (count < fewest))]
    if small and len(kept):
        console.warn(
            f"{len(small)} perturbations of fewer than {fewest} cells are left out: {_few(small)}"
        )
    if not len(kept):
        raise UserError(
            f"none of the {np.count_nonzero(count)} perturbations has {fewest} cells or more "
            f"(the largest has {count.max() if count.size else 0})",
            hint="an effect is a mean over cells: bring more cells, or lower --min-cells",
        )
    code = np.full(len(columns.names) + 1, -1)
    code[kept] = np.arange(len(kept))
    return [columns.names[i] for i in kept], code[columns.perturbation]


def effects(
    cells: LogCells, code: NDArray[np.int64], columns: Columns, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (P, N) effects against matched controls, (N,) control mean, (P,) cells."""
    context = columns.context
    n_contexts = int(context.max()) + 1
    mean, count = cells.group_means(np.where(columns.control, n + context, code), n + n_contexts)
    in_context = np.zeros((n, n_contexts))
    np.add.at(in_context, (code[code >= 0], context[code >= 0]), 1)
    controls, size = mean[n:], count[n:]
    overall = size @ controls / size.sum()
    bare = np.flatnonzero((size == 0) & (in_context.sum(axis=0) > 0))
    if len(bare):
        console.warn(
            f"{len(bare)} of {n_contexts} batches have no control cells: their cells are compared "
            "with the controls of all batches"
        )
        controls[bare] = overall
    share = in_context / in_context.sum(axis=1, keepdims=True)
    return mean[:n] - share @ controls, overall, count[:n]


def _features(
    cells: LogCells,
    columns: Columns,
    code: NDArray[np.int64],
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    target: NDArray[np.int64],
    config: TrainVcc,
) -> NDArray[np.float32]:
    """Make the features of every gene from training cells and the user's tables."""
    learnt = part == TRAIN
    rows = np.flatnonzero(columns.control | np.append(learnt, [False])[code])
    rows = rows[:: max(-(-len(rows) // _FEATURE_CELLS), 1)]
    covariance = features.covariance_loadings(
        cells,
        rows,
        columns.context,
        _seen(config.genes, cells.source.genes),
        rank=config.components,
        seed=config.seed,
    )
    response = features.response_loadings(
        delta[learnt].astype(np.float32), target[learnt], config.components
    )
    usable = np.asarray((np.abs(covariance) > 0).any(axis=1), np.bool_)
    parts = [covariance, response]
    for path in config.features:
        table = features.table(path, cells.source.genes)
        usable &= np.isfinite(table).all(axis=1)
        parts.append(table)
    return features.combine(parts, usable)


def _seen(path: Path | None, genes: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which genes the model sees: those of the file, or all."""
    if path is None:
        return np.ones(len(genes), bool)
    chosen = read_genes(path)
    seen = np.isin(genes, chosen)
    if not seen.any():
        raise UserError(f"{path} names none of the genes of the cells (its first: {chosen[0]})")
    console.say(f"{path}: features from the expression of {int(seen.sum()):,} genes")
    return seen


def _only_known(screen: Screen) -> Screen:
    """Leave out perturbations whose target has no features, and say which."""
    known = screen.known(list(screen.perturbations))
    if known.all():
        return screen
    lost = [str(name) for name in screen.perturbations[~known]]
    if not known[screen.part == TRAIN].sum() > 1:
        raise UserError(
            f"the targets of the perturbations have no features: {_few(lost)}",
            hint="perturbations are named after their target gene, which must be among the genes",
        )
    console.warn(
        f"{len(lost)} perturbations are left out, their target is no gene with features: "
        f"{_few(lost)}"
    )
    return Screen(
        **{
            name: getattr(screen, name)[known]
            if name in ("perturbations", "part", "cells", "delta")
            else getattr(screen, name)
            for name in screen.__dataclass_fields__
        }
    )


def _few(names: list[str], most: int = 8) -> str:
    """List names briefly."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
