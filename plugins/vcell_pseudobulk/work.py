"""Implementation of `vcell pseudobulk`: read pools, draw and sum cells, estimate, and write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.bulk.deconvolve import METHODS, Signatures
from vcell.bulk.draw import Sampling, rare_types
from vcell.bulk.pools import Pools
from vcell.bulk.scores import FractionScores, scored
from vcell.bulk.sums import samples
from vcell.data import open_cells
from vcell.data.detect import require_counts, warn_of_repeated
from vcell.errors import UserError
from vcell_pseudobulk.output import PseudobulkFiles, PseudobulkLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell_pseudobulk import Pseudobulk

_FEW = 10  # cells of a type, below which its samples repeat them
_SHOWN = 12  # groups listed in a message


def make(path: Path, config: Pseudobulk) -> None:
    """Run the command."""
    if config.output is None:
        raise UserError("no output is named", hint="-o bulk.h5ad")
    outputs.check(
        config.output, inputs=[path], overwrite=config.overwrite, suffixes=(".h5ad", ".npz")
    )
    sampling = Sampling(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Sampling)})
    with open_cells(path, config.layer) as source:
        if config.labels is None:
            listed = ", ".join(source.obs_columns[:30]) or "none"
            raise UserError(
                "no column of cell types is named", hint=f"--labels COLUMN; the columns: {listed}"
            )
        require_counts(source)
        warn_of_repeated(source)
        pools = Pools.read(
            source, config.labels, by=config.by, split_by=config.split_by,
            no_label=config.unlabelled,
        )  # fmt: skip
        _say(source, pools, sampling)
        signatures = _signatures(source, pools, config)
        scores = _written(source, pools, sampling, signatures, config)
    _tell(config, pools, scores)


def _say(source: CellSource, pools: Pools, sampling: Sampling) -> None:
    """Report what can be drawn, and what is left out."""
    n = len(pools.groups)
    summary = f"{source.name}: {console.count(len(pools.order), 'cell')} of "
    summary += console.count(len(pools.types), "type")
    if pools.groups[0].name:
        summary += f" in {console.count(n, 'group')}"
    left = [f"{pools.unlabelled:,} without a label"] if pools.unlabelled else []
    left += [f"{pools.ungrouped:,} of no group"] if pools.ungrouped else []
    console.say(f"{summary}; never drawn: {', '.join(left) or 'none'}")
    incomplete = (pools.sizes == 0).any(axis=1)
    if incomplete.any():
        console.say(
            f"left out of groups that lack them: some types in {incomplete.sum()} of {n} groups"
        )
    few = (pools.sizes > 0) & (pools.sizes < _FEW)
    if few.any():
        group, kind = (int(i[0]) for i in np.nonzero(few))
        of = f" of {pools.groups[group].name}" if pools.groups[group].name else ""
        console.warn(
            f"{console.count(int(few.sum()), 'type')} with fewer than {_FEW} cells "
            f"(such as {pools.types[kind]!r}{of}, {pools.sizes[group, kind]}): "
            "samples repeat the same few cells"
        )
    alone = (pools.sizes > 0).sum(axis=1) == 1
    if alone.any():
        names = [pools.groups[i].name or "the file" for i in np.flatnonzero(alone)[:_SHOWN]]
        console.warn(f"only one type, whose fraction is always 1, is in {', '.join(names)}")
    rare = rare_types(pools, sampling)
    if sampling.mode == "rare":
        names = [name for name, is_rare in zip(pools.types, rare, strict=True) if is_rare]
        console.say(f"rare types: {', '.join(names) or 'none'}")


def _signatures(source: CellSource, pools: Pools, config: Pseudobulk) -> Signatures | None:
    if not config.deconvolve:
        return None
    signatures = Signatures.learn(source, pools, config.signature_genes)
    if not all(len(one.genes) for one in signatures.each):
        raise UserError(
            f"{source.name}: the cells that signatures are learnt from have no counts",
            hint="leave out --deconvolve",
        )
    if not signatures.apart:
        console.warn(
            "signatures are learnt from the same cells that make up the samples, so the scores are "
            "too good; --split-by or --by keeps them apart"
        )
    return signatures


def _written(
    source: CellSource, pools: Pools, sampling: Sampling, signatures: Signatures | None,
    config: Pseudobulk,
) -> dict[str, FractionScores]:  # fmt: skip
    """Write the samples part by part; return the scores of the estimates."""
    assert config.output is not None
    methods = list(METHODS) if signatures else []
    about = {"labels": config.labels, "source": source.name, **dataclasses.asdict(sampling)}
    truth: list[NDArray[Any]] = []
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in methods}
    size = len(pools.groups) * sampling.samples
    columns = {"by": config.by, "split": config.split_by}
    layout = PseudobulkLayout(source.genes, pools, size, methods, columns, about)
    with PseudobulkFiles.of(config.output, layout) as output:
        for part in samples(source, pools, sampling, memory=config.memory << 20):
            estimates = {}
            for name in methods:
                assert signatures is not None
                estimates[name] = signatures.estimate(name, part.counts, part.drawn.group)
                found[name].append(estimates[name])
            truth.append(part.drawn.fractions)
            output.append(part, estimates)
            del part  # frees its memory for the next one
    all_truth = np.concatenate(truth)
    return {
        name: scored(all_truth, np.concatenate(parts), pools.types) for name, parts in found.items()
    }


def _tell(config: Pseudobulk, pools: Pools, scores: dict[str, FractionScores]) -> None:
    n = len(pools.groups) * config.samples
    result: dict[str, Any] = {
        "output": str(config.output), "samples": n, "cells": config.cells,
        "types": list(pools.types), "groups": [group.name for group in pools.groups],
        "unlabelled": pools.unlabelled,
    }  # fmt: skip
    text = (
        f"{config.output}: {console.count(n, 'sample')} of {console.count(config.cells, 'cell')}, "
    )
    text += console.count(len(pools.types), "type")
    if scores:
        result["scores"] = {name: score.plain() for name, score in scores.items()}
        rows: list[list[Any]] = [
            ["all", *(v for s in scores.values() for v in (s.overall_rmse, s.overall_ccc))]
        ]
        rows += [
            [kind, *(v for s in scores.values() for v in (s.rmse[k], s.ccc[k]))]
            for k, kind in enumerate(pools.types)
        ]
        shown = [[kind, *(f"{value:.4f}" for value in values)] for kind, *values in rows]
        heads = [f"{name} {what}" for name in scores for what in ("RMSE", "CCC")]
        text = f"{console.table(shown, ['type', *heads])}\n\n{text}"
    console.result(result, text)
