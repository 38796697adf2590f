"""Collect what is known about the cells, and report it as text, JSON and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.data import detect, labels, open_cells
from vcell.errors import UserError
from vcell_inspect.problems import of_labels, of_names, of_raw, of_survey
from vcell_inspect.survey import Survey, survey
from vcell_inspect.text import as_text

if TYPE_CHECKING:
    from vcell.data import CellSource, Column
    from vcell_inspect import Inspect

#: With more cells, names and text columns are read only with --full.
MANY_CELLS = 1_000_000
PREVIEW_FROM, PREVIEW_CELLS, PREVIEW_GENES = 64, 5, 6
SHOWN_CATEGORIES = 8


def run(files: tuple[Path, ...], config: Inspect) -> None:
    """Inspect the files, or the project's cells."""
    chosen: Any = list(files) or ([config.cells] if config.cells else [])
    if not chosen:
        raise UserError("no cells are named", hint="vcell inspect FILE, or set cells in [data]")
    if config.html is not None:
        outputs.check(
            config.html,
            inputs=chosen,
            overwrite=config.overwrite,
            suffixes=(".html", ".htm"),
        )
    with open_cells(chosen, config.layer, join=config.join) as source:
        report, seen = inspect(source, config)
        if config.html is not None:
            from vcell_inspect import embeddings

            drawn = embeddings.read(source, report)
    text = as_text(report)
    if config.html is not None:
        from vcell_inspect.page import page

        with console.printed_if_lost(report, text):
            page(report, seen, drawn).write(config.html)
        console.say(f"wrote {config.html}")
    console.result(report, text)


def inspect(source: CellSource, config: Inspect) -> tuple[dict[str, Any], Survey | None]:
    """Return everything known of the cells, for JSON, and the survey."""
    many = source.n_cells > MANY_CELLS and not config.full
    # Read once, and not kept by the source: the memory of names is free again for the cells.
    names = None if many else source.obs_frame.names()
    problems = of_names(source, names)
    first = None if names is None else names[:PREVIEW_FROM].tolist()
    del names
    seen = survey(source, full=config.full)
    found = detect.scale(source, quiet=True)
    if seen is not None:
        problems += of_survey(seen, found)
    problems += of_raw(source)
    found_labels = _labels(source, config)
    problems += of_labels(source, found_labels)
    report = {
        **_matrix(source),
        "values": detect.describe(found) | {"text": found.text},
        "labels": found_labels,
        "obs": [_column(source, name, many=many) for name in source.obs_columns],
        "var": source.var_columns,
        "qc": seen.summary() if seen is not None else None,
        "problems": problems,
        "preview": _preview(source, first) if seen is not None else None,
        "full": config.full,
    }
    return report, seen


def _matrix(source: CellSource) -> dict[str, Any]:
    """Describe the matrix and its file."""
    layout, size = source.layout, source.n_cells * source.n_genes
    on_disk = sum(_size(path) for path in source.paths)
    return {
        "name": source.name,
        "format": source.parts.get("format"),
        "n_cells": source.n_cells,
        "n_genes": source.n_genes,
        "layer": source.layer or "X",
        "stored": layout.kind,
        "dtype": str(source.dtype),
        "index_dtype": layout.index_dtype,
        "compression": layout.compression,
        "chunk": list(layout.chunk) if layout.chunk else None,
        "nnz": source.nnz,
        "density": source.nnz / size if source.nnz is not None and size else None,
        "matrix_bytes": layout.bytes,
        "file_bytes": on_disk or None,
        "layers": source.parts.get("layers", []),
        "raw": bool(source.parts.get("raw")),
        "obsm": source.parts.get("obsm", []),
    }


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _labels(source: CellSource, config: Inspect) -> dict[str, Any]:
    """Return the meanings of columns, or why they are unknown."""
    try:
        found = labels.find(source, config, quiet=True)
    except UserError as error:
        typed = [name for name in (config.cell_type_column,) if name in source.obs_columns]
        typed += labels.named_like(source.obs_columns, labels.CELL_TYPE_NAMES)
        return {
            "found": False,
            "text": error.message.removeprefix(f"{source.name}: "),
            "hint": error.hint,
            "cell_type_column": typed[0] if typed else None,
        }
    return {
        "found": True,
        "text": found.text,
        "perturbation_column": found.perturbation_column,
        "control": found.control,
        "n_controls": found.n_controls,
        "n_perturbations": found.n_perturbations,
        "batch_column": found.batch_column,
        "cell_type_column": found.cell_type_column,
    }


def _column(source: CellSource, name: str, *, many: bool) -> dict[str, Any]:
    """Describe a column of obs by its largest categories or its range."""
    column = source.obs(name)
    entry: dict[str, Any] = {"name": name, "kind": column.kind}
    if column.kind in ("number", "bool") and column.values.dtype.kind in "biuf":
        values = column.values.astype(np.float64)
        values = values[np.isfinite(values)]
        missing = source.n_cells - len(values)
        span = [float(values.min()), float(values.max())] if len(values) else None
        return entry | {"range": span, "missing": missing}
    if column.kind == "string" and many:
        return entry | {"note": "counted with --full"}
    return entry | _categories(column)


def _categories(column: Column) -> dict[str, Any]:
    counts = column.counts()
    order = np.argsort(-counts, kind="stable")[:SHOWN_CATEGORIES]
    top = [{"label": str(column.categories[i]), "cells": int(counts[i])} for i in order]
    return {
        "n_categories": int((counts > 0).sum()),
        "unused_categories": int((counts == 0).sum()),
        "missing": int((column.codes < 0).sum()),
        "largest": top,
    }


def _preview(source: CellSource, names: list[str] | None) -> dict[str, Any] | None:
    """Return the first cells with values, and the genes found in most of them."""
    rows = slice(0, min(source.n_cells, PREVIEW_FROM))
    block = next(source.chunks(rows, dtype="stored", prefetch=False), None)
    if block is None:
        return None
    cells = np.flatnonzero(np.diff(block.indptr))[:PREVIEW_CELLS]
    genes = np.argsort(-np.bincount(block.indices, minlength=source.n_genes), kind="stable")
    genes = np.sort(genes[:PREVIEW_GENES])
    table = block.toarray()[cells][:, genes] if len(block) * source.n_genes < 1 << 24 else None
    if table is None:
        return None
    return {
        "genes": source.genes[genes].tolist(),
        "cells": [names[cell] for cell in cells]
        if names is not None and source.n_cells <= MANY_CELLS
        else [f"cell {block.rows[cell]}" for cell in cells],
        "values": table.tolist(),
    }
