"""Implementation of `vcell convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell import console
from vcell.store.converting import ConversionPlan, convert

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_convert import Convert


def run(source: Path, target: Path, config: Convert) -> None:
    """Convert, and report what was written."""
    plan = ConversionPlan(
        form=config.to, compression=config.compression, chunk=config.chunk, shard=config.shard
    )
    done = convert(source, target, plan, overwrite=config.overwrite)
    files = [done.path] if done.path.is_file() else [p for p in done.path.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    data = {
        "path": str(done.path),
        "n_cells": done.n_cells,
        "n_genes": done.n_genes,
        "matrices": done.matrices,
        "form": done.form,
        "bytes": size,
    }
    shape = f"{console.count(done.n_cells, 'cell')} x {console.count(done.n_genes, 'gene')}"
    text = f"{done.path}: {shape}, {done.form}, {console.bytes_text(size)}"
    console.result(data, text + f" ({', '.join(done.matrices)})")
