"""The features of human genes shipped with vcell: tables of Gene Ontology and Reactome.

Made by tools/build_gene_features.py; source, version and licence are in `features.json`.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shipped_about() -> dict[str, dict[str, Any]]:
    """Return title, source, licence and sizes of each table."""
    found: dict[str, dict[str, Any]] = json.loads(_folder().joinpath("features.json").read_text())
    return found


def shipped_features() -> list[tuple[str, list[str], NDArray[np.float64]]]:
    """Return title, genes and features (genes, F) of each table."""
    found = []
    for name, about in shipped_about().items():
        with _folder().joinpath(f"{name}.npz").open("rb") as file:
            table = np.load(file, allow_pickle=False)
            genes = [str(gene) for gene in table["genes"]]
            found.append((str(about["title"]), genes, table["features"].astype(np.float64)))
    return found


def _folder() -> Any:
    return resources.files("vcell.genes")
