"""Planted tables of gene sets, with graphs that explain them or do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcell_train_graph.planted import Planted, planted


def written(folder: Path, made: Planted) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tau.tsv").write_text("\n".join(made.rows()) + "\n")
    for name, lines in made.edges().items():
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose signal is in the first of two relations."""
    made = planted(n_genes=80, n_queries=70, per_query=8, n_decoys=1, seed=1)
    return written(tmp_path_factory.mktemp("planted"), made)
