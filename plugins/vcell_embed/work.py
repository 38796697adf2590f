"""Implementation of `vcell embed`: match genes, encode and write in blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.data import open_cells
from vcell.data.detect import require_counts, warn_of_repeated
from vcell.data.write import CellWriter
from vcell.errors import UserError
from vcell.gmvae.encoding import AT_ONCE, GenesFound, batch_of, encoded, matched
from vcell.gmvae.trained import Trained
from vcell.gpu.accelerator import chosen_device
from vcell.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.gmvae.trained import CellPredictions
    from vcell_embed import Embed

    Array = NDArray[Any]

UNKNOWN = "unknown"
_ADDED = ("gmvae_label", "gmvae_probability", "gmvae_component", "gmvae_ood", "gmvae_unknown")
_FAR = 0.2  # share of cells beyond the threshold, above which a warning is printed


def embed(name: str, path: Path, config: Embed) -> None:
    """Run the command."""
    out = _target(path, config)
    run = Run.open(name, root=config.runs)
    trained = Trained.load(run, chosen_device(config.device))
    if trained.outliers is None:
        raise UserError(f"{run.name} is not finished: it has no label head", hint="resume it")
    with open_cells(path, config.layer) as source:
        require_counts(source)
        warn_of_repeated(source)
        genes = matched(source, trained, config.least_genes)
        by = _batches(source, config.adapt_by) if config.adapt_by else None
        by = np.zeros(source.n_cells, np.int32) if by is None and config.adapt else by
        shifts = None if by is None else _shifts(source, trained, genes, by)
        counts = _written(source, trained, genes, config, out, by, shifts)
    _tell(run, out, genes, trained, counts)


def _target(path: Path, config: Embed) -> Path:
    if config.output is None:
        raise UserError("no output is named", hint="-o named.h5ad")
    outputs.check(config.output, inputs=[path], overwrite=config.overwrite, suffixes=(".h5ad",))
    return config.output


def _batches(source: CellSource, column: str) -> Array:
    codes: Array = source.obs(column).codes
    if not (codes >= 0).any():
        raise UserError(
            f"{source.name}: column {column!r} has no values",
            hint="name another column, or take out one shift of all cells: --adapt",
        )
    return codes


def _shifts(source: CellSource, trained: Trained, genes: GenesFound, by: Array) -> Array:
    """Learn each batch's shift in the latent space, in a separate pass."""
    assert trained.outliers is not None
    means = np.empty((source.n_cells, trained.network.shape.latent), np.float32)
    for rows, mean, _ in encoded(source, trained, genes, "adapting"):
        means[rows] = mean
    n = int(by.max()) + 1
    shifts = np.zeros((n + 1, means.shape[1]))  # the last row is for cells without a batch
    for k in range(n):
        if (by == k).any():
            shifts[k] = trained.outliers.shift(means[by == k])
    sizes = np.sqrt((shifts[:n] ** 2).sum(1))
    console.say(
        f"shifts of {console.count(n, 'batch', 'batches')} removed, "
        f"{sizes.min():.2f} to {sizes.max():.2f} long"
    )
    return shifts


def _written(
    source: CellSource, trained: Trained, genes: GenesFound, config: Embed, out: Path,
    by: Array | None, shifts: Array | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the cells with their embedding and labels; return counts for the summary."""
    assert trained.outliers is not None
    threshold = trained.outliers.threshold(config.unknown)
    columns = {name: source.obs(name) for name in source.obs_columns if name not in _ADDED}
    names = list(dict.fromkeys([*trained.labels, UNKNOWN]))  # a label may have that name
    kinds: dict[str, Any] = {
        name: list(column.categories) if column.values.dtype.kind in "OUST" else None
        for name, column in columns.items()
    }
    kinds |= dict.fromkeys(_ADDED) | {"gmvae_label": names}
    uns = {"gmvae": {"threshold": threshold, "missing_genes": len(genes.missing)}}
    given = np.zeros(len(names), np.int64)
    shape = trained.network.shape
    with (
        CellWriter(
            out, source.genes, obs=kinds, obsm={"X_gmvae": shape.latent}, uns=uns,
            dtype=source.dtype,
        ) as writer,
        console.progress("embedding", source.n_cells) as bar,
    ):  # fmt: skip
        for block in source.chunks(max_rows=AT_ONCE, dtype="stored"):
            batch = batch_of(block, trained, genes)
            mean, joint = trained.encode(batch)
            parts: list[Array] = []
            # the shift of a batch applies in the latent space only
            if trained.components is not None and shifts is None:
                parts = trained.components.split(trained.components.of_batch(batch))
            if by is not None and shifts is not None:
                mean = (mean - shifts[by[block.rows]]).astype(np.float32)
            labels = trained.predict(mean, joint, parts)
            codes, unknown = _named(labels, threshold, names.index(UNKNOWN))
            given += np.bincount(codes, minlength=len(names))
            obs = {n: _some(columns[n], kinds[n], block.rows) for n in columns}
            obs |= {
                "gmvae_label": codes, "gmvae_probability": labels.probability.astype(np.float32),
                "gmvae_component": labels.component.astype(np.int32),
                "gmvae_ood": labels.score.astype(np.float32), "gmvae_unknown": unknown,
            }  # fmt: skip
            writer.append(block, obs, source.cells[block.rows], {"X_gmvae": mean})
            bar.advance(len(block))
    return {"threshold": threshold, "given": dict(zip(names, given.tolist(), strict=True))}


def _named(labels: CellPredictions, threshold: float, unknown: int) -> tuple[Array, Array]:
    """Return label codes, including the unknown label, and which cells are unknown."""
    far = labels.score > threshold
    codes = np.where(labels.label < 0, unknown, labels.label)
    return np.where(far, unknown, codes), far


def _some(column: Any, categories: Any, rows: Array) -> Array:
    values: Array = column.codes[rows] if categories is not None else column.values[rows]
    return values


def _tell(run: Run, out: Path, genes: GenesFound, trained: Trained, counts: dict[str, Any]) -> None:
    given = {name: n for name, n in counts["given"].items() if n}
    n, unknown = sum(given.values()), given.get(UNKNOWN, 0)
    if trained.head is not None and unknown > _FAR * n:
        console.warn(
            f"unlike anything that {run.name} has seen: {unknown:,} of {console.count(n, 'cell')}; "
            "--adapt takes out a shift of all of them"
        )
    result = {
        "output": str(out), "run": str(run.path), "cells": n, "labels": given,
        "genes": int((genes.place >= 0).sum()), "missing_genes": len(genes.missing),
        "renamed_genes": genes.renamed, "threshold": counts["threshold"],
    }  # fmt: skip
    table = console.table(sorted(given.items(), key=lambda kv: -kv[1]), ("label", "cells"))
    console.result(
        result, f"{table}\n\n{out}: {console.count(n, 'cell')}, {unknown:,} of them unknown"
    )
