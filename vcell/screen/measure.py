"""From cells to the screen a model learns: effects of perturbations, features of their targets.

Effects are differences to controls of the same batch and context (cell type). Memory is rows x
genes; cells are streamed. P rows, each a perturbation in a context; N genes; C contexts; B groups
of control cells that are matched with.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.as_json import plain
from vcell.errors import UserError
from vcell.screen import features, tables
from vcell.screen.design import Design, ScreenRows
from vcell.screen.names import read_genes, read_perturbations
from vcell.screen.pseudobulk import effects
from vcell.screen.screen import Screen
from vcell.screen.split import TEST, TRAIN, VALIDATION, parse_fold, split
from vcell.screen.targets import members
from vcell.suggest import did_you_mean, few

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.config.screen import ScreenOptions
    from vcell.data.log_cells import LogCells

_FEATURE_CELLS = 50_000  # enough for loadings; more would only cost time


def screen_of(cells: LogCells, design: Design, config: ScreenOptions) -> Screen:
    """Measure every perturbation's effect and every gene's features, with the parts held apart."""
    rows = ScreenRows.of(design, config.min_cells)
    part = _parts(rows, design, config)
    _tell_parts(rows, design, part)
    found = effects(cells, rows, design)
    _check_finite(found.delta, found.control, cells.source)
    feature_genes, values = _features(cells, design, rows, part, found.delta, config)
    return only_known(
        Screen(
            genes=np.asarray(cells.source.genes, dtype=np.str_),
            contexts=np.array(design.contexts, np.str_),
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


def facts(source: Any, scale: Any, labels: Any, design: Design, screen: Screen) -> dict[str, str]:
    """Return what was done to the cells, as files of the run: the settings, and means of genes."""
    told = {
        "file": source.name,
        "values": scale.kind,
        "evidence": scale.evidence,
        "target_sum": screen.target_sum,
        "genes": len(screen.genes),
        "cells": len(design.control),
        "control_cells": int(design.control.sum()),
        "perturbations": len(set(screen.perturbations.tolist())),
        "contexts": screen.contexts.tolist(),
        "labels": asdict(labels),
        "feature_genes": len(screen.feature_genes),
        "features": screen.features.shape[1],
    }
    means = io.StringIO()
    lines = csv.writer(means, lineterminator="\n")  # names of cell types have commas in them
    lines.writerow(["gene", *screen.contexts.tolist()])
    for gene, values in zip(screen.genes.tolist(), screen.control.T, strict=True):
        lines.writerow([gene, *(f"{value:.8g}" for value in values)])
    return {
        "preprocessing.json": json.dumps(plain(told), indent=1),
        "control_means.csv": means.getvalue(),
    }


def _parts(rows: ScreenRows, design: Design, config: ScreenOptions) -> NDArray[np.int8]:
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
        if config.hold_out_context not in design.contexts:
            raise UserError(
                f"there is no context {config.hold_out_context!r}"
                f"{did_you_mean(config.hold_out_context, design.contexts)}",
                hint=f"contexts: {', '.join(design.contexts)}",
            )
        by_row[rows.context == design.contexts.index(config.hold_out_context)] = TEST
        if not (by_row == TRAIN).any():
            raise UserError(
                f"{config.hold_out_context} is the only context: nothing is left to learn"
            )
    return by_row


def _tell_parts(rows: ScreenRows, design: Design, part: NDArray[np.int8]) -> None:
    several = f" in {len(design.contexts)} contexts" if len(design.contexts) > 1 else ""
    console.say(
        f"{len(rows)} perturbations{several}: {(part == TRAIN).sum()} to learn from, "
        f"{(part == VALIDATION).sum()} to choose the model by, {(part == TEST).sum()} held out"
    )


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
    design: Design,
    rows: ScreenRows,
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    config: ScreenOptions,
) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
    """Make the features of genes from training cells and the user's tables."""
    targets = list(dict.fromkeys(gene for name in rows.names for gene in members(name)))
    blocks = []
    if config.expression_features:
        blocks.append(_expression(cells, design, rows, part, delta, config))
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
    design: Design,
    rows: ScreenRows,
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    config: ScreenOptions,
) -> features.Block:
    """Return how each gene varies with others in training cells, and responds in training."""
    learnt = part == TRAIN
    used = np.flatnonzero(design.control | np.append(learnt, [False])[rows.of_cell])
    used = used[:: max(-(-len(used) // _FEATURE_CELLS), 1)]
    genes = cells.source.genes
    covariance = features.covariance_loadings(
        cells,
        used,
        design.matched,
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


def only_known(screen: Screen) -> Screen:
    """Leave out rows of which no model could learn or say anything, and say which."""
    names = screen.perturbations.tolist()
    known, sets = screen.known(names), {name: members(name) for name in names}
    learnt = {gene for row in screen.rows(TRAIN) for gene in sets[names[row]]}
    # in how many perturbations each target occurs
    times = Counter(gene for genes in sets.values() for gene in genes)
    # a target learnt from needs no features; one of a set is learnt through the others
    learns = [not learnt.isdisjoint(sets[name]) for name in names]
    shares = [any(times[gene] > 1 for gene in sets[name]) for name in names]
    kept = known | (np.array(learns, np.bool_) & np.array(shares, np.bool_))
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
