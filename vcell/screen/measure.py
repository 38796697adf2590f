"""From cells to the screen a model learns: effects of perturbations, features of their targets.

Effects are differences to controls of the same batch and context (cell type). Memory is rows x
genes; cells are streamed. P rows, each a perturbation in a context; N genes; C contexts; B groups
of control cells that are matched with.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.as_json import plain
from vcell.config.screen import parse_fold
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.screen import effects, features, graphs
from vcell.screen.design import Design, ScreenRows
from vcell.screen.known import Known
from vcell.screen.names import read_genes, read_perturbations
from vcell.screen.prior_effects import PriorEffects
from vcell.screen.screen import Screen
from vcell.screen.split import TEST, TRAIN, VALIDATION, split
from vcell.screen.targets import members
from vcell.suggest import did_you_mean, few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.config.screen import ScreenOptions
    from vcell.data.log_cells import LogCells

_FEATURE_CELLS = 50_000  # enough for loadings; more would only cost time


def screen_of(cells: LogCells, design: Design, config: ScreenOptions) -> Screen:
    """Measure all effects and features of genes, with held-out parts kept separate.

    Which perturbations can be predicted is decided before any are held out.
    """
    rows = ScreenRows.of(design, config.min_cells)
    genes = [str(gene) for gene in cells.source.genes]
    named = list(dict.fromkeys(gene for name in rows.names for gene in members(name)))
    read = graphs.read_graphs(config.graph, genes, named)
    walked = graphs.blocks_of(read) if read and config.graph_features else []
    known = Known.of(genes, rows.names, config, walked)
    rows = rows.only(known.learnable)
    part = _parts(rows, design, known, config)
    _tell_parts(rows, design, part)
    found = effects.measure(
        cells, rows, design, part == TEST, shared=config.controls == "shared", seed=config.seed
    )
    _check_finite(found.delta, found.control, cells.source)
    blocks = list(known.blocks)
    if config.expression_features:
        blocks.insert(0, _expression(cells, design, rows, part, found.delta, known, config))
    targets = list(dict.fromkeys(gene for name in rows.names for gene in members(name)))
    joined = features.combine(blocks, targets)
    return Screen(
        genes=np.asarray(genes, dtype=np.str_),
        contexts=np.array(design.contexts, np.str_),
        control=found.control.astype(np.float32),
        perturbations=np.array(rows.names, np.str_),
        context=rows.context,
        part=part,
        cells=found.cells,
        delta=found.delta.astype(np.float32),
        noise=found.noise.astype(np.float32),
        feature_genes=joined.genes,
        features=joined.values,
        target_sum=cells.target_sum,
        blocks=joined.blocks,
        widths=joined.widths,
        halves=found.halves,
        control_noise=found.control_noise.astype(np.float32),
        **_prior(config.prior_effects, genes, rows.names),
        **graphs.stored_fields(read, genes),
    )


def _prior(paths: Sequence[Path], genes: list[str], names: list[str]) -> dict[str, NDArray[Any]]:
    """Read the effects of other screens, and say how many perturbations they share with this."""
    if not paths:
        return {}
    found = [PriorEffects.read(path).believed(genes) for path in paths]
    for path, (known, _) in zip(paths, found, strict=True):
        both = len(set(known) & set(names))
        of = console.count(len(known), "perturbation")
        console.say(f"{path}: effects of {of}, {both} of them in this screen")
    sizes = [len(known) for known, _ in found]
    return {
        "prior_sources": np.array([str(path) for path in paths], np.str_),
        "prior_source": np.repeat(np.arange(len(paths)), sizes),
        "prior_names": np.array([name for known, _ in found for name in known], np.str_),
        "prior_effects": np.concatenate([effect for _, effect in found]),
    }


def facts(source: Any, scale: Any, labels: Any, design: Design, screen: Screen) -> dict[str, str]:
    """Return files for the run that document its input: settings, and means of the controls."""
    description = {
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
        "preprocessing.json": json.dumps(plain(description), indent=1),
        "control_means.csv": means.getvalue(),
    }


def _parts(
    rows: ScreenRows, design: Design, known: Known, config: ScreenOptions
) -> NDArray[np.int8]:
    """Assign the parts, by name or drawn among the predictable, and hold out a context if set."""
    test, validation = (_given(path, rows.names) for path in (config.held_out, config.validation))
    may_be_held = known.predictable | set(test or ())
    unique = [*dict.fromkeys(name for name in rows.names if name in may_be_held)]
    part = split(
        unique,
        test=test,
        validation=validation,
        fold=parse_fold(config.fold) if config.fold else None,
        test_share=config.test_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    if test and not known.predictable & set(test):
        raise UserError(
            f"no model could be scored: none of the {len(test)} held-out perturbations has a "
            "target with features",
            hint="name feature tables of their genes with --features, or hold out others",
        )
    place = {name: i for i, name in enumerate(unique)}
    # learnt from but predicted by no model, such as a pair with one target unknown
    number = [place.get(name) for name in rows.names]
    by_row = np.array([TRAIN if i is None else part[i] for i in number], np.int8)
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


def _given(path: Path | None, names: Sequence[str]) -> list[str] | None:
    """Return the perturbations that a file lists, under the screen's names for the same targets."""
    if path is None:
        return None
    index = GeneIndex(dict.fromkeys(gene for name in names for gene in members(name)))

    def targets(name: str) -> frozenset[str]:
        found = {gene: index.find(gene) for gene in members(name)}
        return frozenset(index.genes[i] if i >= 0 else gene for gene, i in found.items())

    given, known = list(read_perturbations(path)), set(names)
    others = [name for name in given if name not in known and members(name)]
    place = {targets(name): name for name in reversed(names)} if others else {}
    called = {name: place[key] for name in others if (key := targets(name)) in place}
    if called:
        console.say(f"{path}: {few([f'{name} is {other}' for name, other in called.items()])}")
    return [*dict.fromkeys(called.get(name, name) for name in given)]


def _tell_parts(rows: ScreenRows, design: Design, part: NDArray[np.int8]) -> None:
    several = f" in {len(design.contexts)} contexts" if len(design.contexts) > 1 else ""
    console.say(
        f"{console.count(len(rows), 'perturbation')}{several}: "
        f"{(part == TRAIN).sum()} to learn from, "
        f"{(part == VALIDATION).sum()} to choose the model by, {(part == TEST).sum()} held out"
    )


def _check_finite(delta: NDArray[np.float64], control: NDArray[np.float64], source: Any) -> None:
    bad = np.flatnonzero(~np.isfinite(delta).all(axis=0) | ~np.isfinite(control).all(axis=0))
    if len(bad):
        raise UserError(
            f"{source.name}: {console.count(len(bad), 'gene')} with values that are not "
            f"finite, such as {source.genes[bad[0]]}",
            hint="remove or replace NaN and infinities; vcell inspect --full counts them",
        )


def _expression(
    cells: LogCells,
    design: Design,
    rows: ScreenRows,
    part: NDArray[np.int8],
    delta: NDArray[np.float64],
    known: Known,
    config: ScreenOptions,
) -> features.FeatureBlock:
    """Return loadings: covariation in training cells, and responses in training effects."""
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
    sets = [members(name) for name in rows.names]
    single = [one[0] if len(one) == 1 else "" for one in sets]
    target = np.array([number.get(known.measured.get(gene, ""), -1) for gene in single])
    response = features.response_loadings(
        delta[learnt].astype(np.float32), target[learnt], config.components
    )
    usable = np.asarray((np.abs(covariance) > 0).any(axis=1), np.bool_)
    scaled = [
        part_ / max(float(part_[usable].std()), 1e-12) if usable.any() else part_
        for part_ in (covariance, response)
    ]
    usable[[number[gene] for gene in known.measured.values()]] = True  # never seen: the mean
    values = np.concatenate(scaled, axis=1)
    also = {name: gene for name, gene in known.measured.items() if name not in number}
    rows_ = [*np.flatnonzero(usable), *(number[gene] for gene in also.values())]
    return features.FeatureBlock(
        "expression", [*(str(gene) for gene in genes[usable]), *also], values[rows_]
    )


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
