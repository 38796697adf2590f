"""The rest of a store: tables of cells and genes, statistics, group metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.elements import note
from vcell.data.zarr_writing import ZarrGroup, consolidate
from vcell.kernels import scatter
from vcell.outputs import MADE_BY, made_by
from vcell.store.frames import write_obs, write_var
from vcell.store.store import MANIFEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.store.build.first_pass import CellMeasures
    from vcell.store.frames import Columns


def write_tables(
    built: Path,
    source: CellSource,
    cells: CellMeasures,
    order: NDArray[np.integer[Any]],
    genes: NDArray[np.int64],
    stats: NDArray[np.float64],
) -> None:
    """Write obs and var in anndata's format."""

    def mito_share() -> NDArray[np.float64]:
        total = cells.total[order]
        share: NDArray[np.float64] = cells.mito[order] / np.where(total != 0, total, 1)
        return share

    measured: Columns = {
        "source_row": lambda: order.astype(np.int64),
        "n_genes": lambda: cells.genes[order],
        "total_counts": lambda: cells.total[order],
        "mito_share": mito_share,
    }
    group = ZarrGroup(built)
    write_obs(group, source, order, measured)
    counts = stats[:, scatter.N_CELLS].astype(np.int64)
    write_var(group, source, genes, {"n_cells": lambda: counts})
    note(group.create_group("uns"), "dict", "0.1.0")


def write_preprocessing(
    built: Path,
    manifest: dict[str, Any],
    genes: NDArray[Any],
    stats: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Write what `predict` needs to process cells as in training."""
    n = len(totals)
    mean = stats[:, scatter.SUM] / n
    variance = (stats[:, scatter.SUM_SQUARES] / n - mean**2) * (n / max(n - 1, 1))
    np.savez(
        built / "preprocessing.npz",
        genes=genes,
        n_cells=stats[:, scatter.N_CELLS].astype(np.int64),
        mean=mean,
        variance=np.maximum(variance, 0),
        maximum=stats[:, scatter.MAX],
        total_counts_quantiles=np.quantile(totals, np.linspace(0, 1, 101)),
    )
    about = {key: manifest[key] for key in ("format", "counts", "target_sum", "n_cells", "n_genes")}
    about["normalisation"] = "log1p(count * target_sum / total_counts)"
    about["total_counts"] = "sum over all genes of the input, also those that are not in the store"
    about["recipe"] = manifest["recipe"]
    (built / "preprocessing.json").write_text(json.dumps(about, indent=2))


def write_groups(built: Path, manifest: dict[str, Any]) -> None:
    """Write the group metadata, consolidated at the root, and the manifest."""
    shape = [manifest["n_cells"], manifest["n_genes"]]
    kinds: dict[Path, dict[str, Any]] = {
        built: {
            "encoding-type": "anndata",
            "encoding-version": "0.1.0",
            MADE_BY: made_by(),
        },
        built / "X": {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape},
    }
    for folder, attributes in kinds.items():
        ZarrGroup(folder, attributes)
    consolidate(built)
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2))
