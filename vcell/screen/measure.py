"""From cells to the screen a model learns: effects of perturbations, features of their targets.

Effects are differences to controls of the same batch and context (cell type). Memory is rows x
genes; cells are streamed. P rows, each a perturbation in a context; N genes; C contexts; B groups
of control cells that are matched with.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.as_json import plain
from vcell.errors import UserError
from vcell.screen import features, tables
from vcell.screen.features import few
from vcell.screen.names import read_genes, read_perturbations
from vcell.screen.screen import Screen
from vcell.screen.split import TEST, TRAIN, VALIDATION, parse_fold, split
from vcell.screen.targets import members
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.config.screen import ScreenOptions
    from vcell.data.log_cells import LogCells

_FEATURE_CELLS = 50_000  # enough for loadings; more would only cost time


@dataclass(frozen=True)
class Columns:
    """The labels of every cell.

    Attributes
    ----------
    perturbation, names
        Codes, -1 for controls and cells without a label, and what they mean.
    control
        Whether the cell is a control.
    context, contexts
        Codes of cell types, -1 for none, and their names.
    matched
        Codes of batch and context together: controls are compared within.
    """

    perturbation: NDArray[np.int64]
    names: list[str]
    control: NDArray[np.bool_]
    context: NDArray[np.int64]
    contexts: list[str]
    matched: NDArray[np.int64]

    @classmethod
    def read(cls, source: Any, labels: Any) -> Columns:
        """Read the columns that `labels` names."""
        column = source.obs(labels.perturbation_column)
        names = [str(name) for name in column.categories]
        codes = np.asarray(column.codes, np.int64)
        control = codes == names.index(labels.control)
        context, contexts = np.zeros(len(codes), np.int64), ["all"]
        if labels.cell_type_column is not None:
            types = source.obs(labels.cell_type_column)
            context = np.asarray(types.codes, np.int64)
            contexts = [str(name) for name in types.categories]
            if (context < 0).any():
                lost = int((context < 0).sum())
                console.warn(f"{lost:,} cells without a {labels.cell_type_column} are left out")
        batch = np.zeros(len(codes), np.int64)
        if labels.batch_column is not None:
            batch = np.asarray(source.obs(labels.batch_column).codes, np.int64) + 1
        _, matched = np.unique(context * (batch.max() + 1) + batch, return_inverse=True)
        left_out = context < 0
        return cls(
            np.where(control | left_out, -1, codes), names, control & ~left_out, context, contexts,
            matched.astype(np.int64),
        )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The rows of a screen, and which cells belong to each (-1: none)."""

    names: list[str]
    context: NDArray[np.int64]
    of_cell: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, columns: Columns, fewest: int) -> Rows:
        """Find the perturbations of `fewest` cells or more in each context."""
        n_contexts = len(columns.contexts)
        combined = columns.perturbation * n_contexts + columns.context
        combined[columns.perturbation < 0] = -1
        count = np.bincount(combined[combined >= 0], minlength=len(columns.names) * n_contexts)
        kept = np.flatnonzero(count >= fewest)
        small = [
            columns.names[i // n_contexts] for i in np.flatnonzero((count > 0) & (count < fewest))
        ]
        if not len(kept):
            raise UserError(
                f"none of the {np.count_nonzero(count)} perturbations has {fewest} cells or more "
                f"(the largest has {count.max() if count.size else 0})",
                hint="an effect is a mean over cells: bring more cells, or lower --min-cells",
            )
        if small:
            console.warn(
                f"{len(small)} perturbations of fewer than {fewest} cells are left out: "
                f"{few(small)}"
            )
        row = np.full(len(count) + 1, -1)
        row[kept] = np.arange(len(kept))
        names = [columns.names[i] for i in kept // n_contexts]
        return cls(names, kept % n_contexts, row[combined])


def screen_of(cells: LogCells, columns: Columns, config: ScreenOptions) -> Screen:
    """Measure every perturbation's effect and every gene's features, with the parts held apart."""
    rows = Rows.of(columns, config.min_cells)
    part = _parts(rows, columns, config)
    _tell_parts(rows, columns, part)
    found = effects(cells, rows, columns)
    _check_finite(found.delta, found.control, cells.source)
    feature_genes, values = _features(cells, columns, rows, part, found.delta, config)
    return _only_known(
        Screen(
            genes=np.asarray(cells.source.genes, dtype=np.str_),
            contexts=np.array(columns.contexts, np.str_),
            control=found.control.astype(np.float32),
            perturbations=np.array(rows.names, np.str_),
            context=rows.context,
            part=part,
            cells=found.cells,
            delta=found.delta.astype(np.float32),
            noise=found.noise.astype(np.float32),
            feature_genes=feature_genes,
            features=values,
            target_sum=cells.target_sum,
        )
    )


def facts(source: Any, scale: Any, labels: Any, columns: Columns, screen: Screen) -> dict[str, str]:
    """Return what was done to the cells, as files of the run: the settings, and means of genes."""
    told = {
        "file": source.name,
        "values": scale.kind,
        "evidence": scale.evidence,
        "target_sum": screen.target_sum,
        "genes": len(screen.genes),
        "cells": len(columns.control),
        "control_cells": int(columns.control.sum()),
        "perturbations": len(set(screen.perturbations.tolist())),
        "contexts": screen.contexts.tolist(),
        "labels": asdict(labels),
        "feature_genes": len(screen.feature_genes),
        "features": screen.features.shape[1],
    }
    lines = [",".join(["gene", *screen.contexts.tolist()])]
    lines += [
        ",".join([gene, *(f"{value:.8g}" for value in means)])
        for gene, means in zip(screen.genes.tolist(), screen.control.T, strict=True)
    ]
    return {
        "preprocessing.json": json.dumps(plain(told), indent=1),
        "control_means.csv": "\n".join(lines) + "\n",
    }


def _parts(rows: Rows, columns: Columns, config: ScreenOptions) -> NDArray[np.int8]:
    """Hold perturbations apart by name, and a context if asked."""
    unique = list(dict.fromkeys(rows.names))
    part = split(
        unique,
        test=list(read_perturbations(config.held_out)) if config.held_out else None,
        validation=list(read_perturbations(config.validation)) if config.validation else None,
        fold=parse_fold(config.fold) if config.fold else None,
        test_share=config.test_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    place = {name: i for i, name in enumerate(unique)}
    by_row = part[[place[name] for name in rows.names]]
    if config.hold_out_context is not None:
        if config.hold_out_context not in columns.contexts:
            raise UserError(
                f"there is no context {config.hold_out_context!r}"
                f"{did_you_mean(config.hold_out_context, columns.contexts)}",
                hint=f"contexts: {', '.join(columns.contexts)}",
            )
        by_row[rows.context == columns.contexts.index(config.hold_out_context)] = TEST
        if not (by_row == TRAIN).any():
            raise UserError(
                f"{config.hold_out_context} is the only context: nothing is left to learn"
            )
    return by_row


def _tell_parts(rows: Rows, columns: Columns, part: NDArray[np.int8]) -> None:
    several = f" in {len(columns.contexts)} contexts" if len(columns.contexts) > 1 else ""
    console.say(
        f"{len(rows)} perturbations{several}: {(part == TRAIN).sum()} to learn from, "
        f"{(part == VALIDATION).sum()} to choose the model by, {(part == TEST).sum()} held out"
    )


@dataclass(frozen=True)
class Effects:
    """(P, N) effects, (P,) their sampling variance, (C, N) control means, (P,) cells."""

    delta: NDArray[np.float64]
    noise: NDArray[np.float64]
    control: NDArray[np.float64]
    cells: NDArray[np.int64]


def effects(cells: LogCells, rows: Rows, columns: Columns) -> Effects:
    """Measure the rows against matched controls, in one pass over the cells."""
    n, n_matched = len(rows), int(columns.matched.max()) + 1
    group = np.where(columns.control, n + columns.matched, rows.of_cell)
    mean, variance, count = cells.group_moments(group, n + n_matched)
    share = np.zeros((n, n_matched))
    own = rows.of_cell >= 0
    np.add.at(share, (rows.of_cell[own], columns.matched[own]), 1)
    context = np.zeros(n_matched, np.int64)
    context[columns.matched] = columns.context
    controls, size = mean[n:], count[n:]
    per_context = _of_contexts(controls, size, context, columns)
    bare = np.flatnonzero((size == 0) & (share.sum(axis=0) > 0))
    if len(bare) == np.count_nonzero(share.sum(axis=0)):
        raise UserError(
            "no batch has both controls and perturbed cells: batch and effect cannot be told apart",
            hint="if the column is no batch, name another one with --batch-column",
        )
    if len(bare):
        console.warn(
            f"{len(bare)} of {n_matched} batches have no control cells: their cells are compared "
            "with the controls of all batches"
        )
        controls[bare] = per_context[context[bare]]
    share /= share.sum(axis=1, keepdims=True)
    of_control = np.divide(variance[n:], size, out=np.zeros(n_matched), where=size > 0)
    noise = variance[:n] / np.maximum(count[:n], 1) + share**2 @ of_control
    return Effects(mean[:n] - share @ controls, noise, per_context, count[:n])


def _of_contexts(
    controls: NDArray[np.float64],
    size: NDArray[np.int64],
    context: NDArray[np.int64],
    columns: Columns,
) -> NDArray[np.float64]:
    """Return (C, N) control means; a context without controls gets those of all."""
    overall = size @ controls / size.sum()
    found = np.tile(overall, (len(columns.contexts), 1))
    for code, name in enumerate(columns.contexts):
        weight = np.where(context == code, size, 0)
        if weight.sum():
            found[code] = weight @ controls / weight.sum()
        elif (columns.context == code).any():
            console.warn(f"{name} has no control cells: those of all contexts stand in for them")
    return found


def _check_finite(delta: NDArray[np.float64], control: NDArray[np.float64], source: Any) -> None:
    bad = np.flatnonzero(~np.isfinite(delta).all(axis=0) | ~np.isfinite(control).all(axis=0))
    if len(bad):
        raise UserError(
            f"{source.name}: {len(bad)} genes have values that are not finite, such as "
            f"{source.genes[bad[0]]}",
            hint="remove or replace NaN and infinities; vcell inspect --full counts them",
        )


def _features(
    cells: LogCells,
    columns: Columns,
    rows: Rows,
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    config: ScreenOptions,
) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
    """Make the features of genes from training cells and the user's tables."""
    targets = list(dict.fromkeys(gene for name in rows.names for gene in members(name)))
    blocks = []
    if config.expression_features:
        blocks.append(_expression(cells, columns, rows, part, delta, config))
    for path in config.features:
        genes, values = tables.read(path)
        if not set(targets) & set(genes):
            raise UserError(
                f"{path} names none of the {len(targets)} target genes (its first: {genes[0]})",
                hint="gene names must be those of the perturbations, of the same species",
            )
        blocks.append(features.Block(str(path), genes, values))
    if not blocks:
        raise UserError(
            "nothing is known of any target: --no-expression-features, and no --features",
            hint="name a gene feature table",
        )
    return features.combine(blocks, targets)


def _expression(
    cells: LogCells,
    columns: Columns,
    rows: Rows,
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    config: ScreenOptions,
) -> features.Block:
    """Return how each gene varies with others in training cells, and responds in training."""
    learnt = part == TRAIN
    used = np.flatnonzero(columns.control | np.append(learnt, [False])[rows.of_cell])
    used = used[:: max(-(-len(used) // _FEATURE_CELLS), 1)]
    genes = cells.source.genes
    covariance = features.covariance_loadings(
        cells,
        used,
        columns.matched,
        _seen(config.genes, genes),
        rank=config.components,
        seed=config.seed,
    )
    number = {str(gene): i for i, gene in enumerate(genes)}
    target = np.array([number.get(name, -1) for name in rows.names])
    response = features.response_loadings(
        delta[learnt].astype(np.float32), target[learnt], config.components
    )
    usable = np.flatnonzero((np.abs(covariance) > 0).any(axis=1))
    scaled = [part_ / max(float(part_[usable].std()), 1e-12) for part_ in (covariance, response)]
    values = np.concatenate(scaled, axis=1)[usable]
    return features.Block("expression", [str(gene) for gene in genes[usable]], values)


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
    """Leave out rows of which no model could learn or say anything, and say which."""
    known = screen.known(screen.perturbations.tolist())
    learnt = set()
    for name in screen.perturbations[screen.rows(TRAIN)].tolist():
        learnt |= set(members(name))
    # a target learnt from needs no features; one of a set is learnt through the others
    kept = known | np.array(
        [bool(learnt & set(members(name))) for name in screen.perturbations.tolist()]
    ) & np.array([_shares(name, screen) for name in screen.perturbations.tolist()])
    lost = list(dict.fromkeys(screen.perturbations[~kept].tolist()))
    if kept[screen.part == TRAIN].sum() < 2:
        raise UserError(
            f"the targets of the perturbations have no features: {few(lost)}",
            hint="perturbations are named after their target genes (A, or A+B), which must be "
            "among the genes of the cells or in a table of --features",
        )
    tested = screen.rows(TEST)
    if len(tested) and not known[tested].any():
        raise UserError(
            f"no model could be scored: none of the {len(tested)} held-out perturbations has a "
            "target with features",
            hint="name feature tables of their genes with --features, or hold out nothing with "
            "--test-share 0",
        )
    if not lost:
        return screen
    console.warn(
        f"{len(lost)} perturbations are left out, their target is no gene with features: "
        f"{few(lost)}"
    )
    by_row = ("perturbations", "context", "part", "cells", "delta", "noise")
    return Screen(
        **{
            name: getattr(screen, name)[kept] if name in by_row else getattr(screen, name)
            for name in screen.__dataclass_fields__
        }
    )


def _shares(name: str, screen: Screen) -> bool:
    """Say whether another perturbation has a target in common, through which this one counts."""
    own = set(members(name))
    return any(
        own & set(members(other)) for other in set(screen.perturbations.tolist()) if other != name
    )
