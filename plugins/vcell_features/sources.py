"""Read sources of gene features: sets, a network, a table, or effects."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.genes.sets import read_sets
from vcell.graph.layout import cells, is_number, named_ends
from vcell.screen import tables
from vcell.text_files import require_file, suffix_of, text_of
from vcell_features.embed import of_edges, of_sets

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_features import Features

_SETS, _NETWORK, _TABLE, _EFFECTS = "sets", "network", "table", "effects"
_PEEK = 50  # lines by which the kind of a text file is detected


@dataclass(frozen=True)
class FeatureTable:
    """A feature table: its genes, their features (G, F), and a description of the source."""

    genes: list[str]
    values: NDArray[np.float32]
    description: str


def made(path: Path, config: Features) -> FeatureTable:
    """Read a source and make its table."""
    require_file(path)
    kind = _kind(path) if config.kind == "auto" else config.kind
    if kind == _SETS:
        sets = {name: found.genes for name, found in read_sets(path).items()}
        genes, values = of_sets(sets, config.rank)
        return FeatureTable(genes, values, console.count(len(sets), "gene set"))
    if kind == _NETWORK:
        edges = _edges(path, config)
        genes, values = of_edges(edges, config.rank, config.method)
        return FeatureTable(
            genes,
            values,
            f"a network of {console.count(len(edges[0]), 'edge')}, by {config.method}",
        )
    if kind == _EFFECTS:
        from vcell.screen.prior_effects import PriorEffects

        genes, values = PriorEffects.read(path).components(config.rank)
        return FeatureTable(
            genes, values, f"the effects of {console.count(len(genes), 'perturbation')}"
        )
    genes, table = tables.read(path)
    return FeatureTable(
        genes, table.astype(np.float32), f"a table of {console.count(table.shape[1], 'column')}"
    )


def _kind(path: Path) -> str:
    """Detect the kind of a file by its name and its first lines."""
    suffix = suffix_of(path)
    if suffix == ".gmt":
        return _SETS
    if suffix in (".npz", ".h5ad"):
        return _TABLE
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            columns = set(pq.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a Parquet file: {error}") from None
        return _EFFECTS if {"perturbation", "effect", "standard_error"} <= columns else _TABLE
    head, rows = _first_lines(path)
    if named_ends(head) is not None:
        return _NETWORK
    first = rows[0] if rows and len(rows[0]) == len(head) else head
    n_words = sum(not is_number(cell) for cell in first)
    if n_words >= 2 or (len(first) == 2 and n_words == 2):
        return _NETWORK
    if n_words == 1 and len(first) > 1:
        return _TABLE
    raise UserError(
        f"{path} is neither sets, a network nor a table of genes: its first line is "
        f"{' '.join(head)[:60]!r}",
        hint="--kind sets, network, table or effects says what it is",
    )


def _edges(path: Path, config: Features) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return the ends and weights of edges; weights are 1 if the file has none."""
    from vcell.graph import read_edges

    (found,) = read_edges(
        path, ids=config.ids, weight=config.weight, minimum=config.minimum, split=False
    )
    if len(np.union1d(found.source, found.target)) < 3:
        raise UserError(
            f"{path}: {console.count(len(found.source), 'edge')} left, too few for features",
            hint="lower --minimum" if config.minimum else "is it a list of edges?",
        )
    one, other = ([found.names[i] for i in ends] for ends in (found.source, found.target))
    weight = np.ones(len(one)) if found.weight is None else found.weight.astype(np.float64)
    return one, other, weight


def _first_lines(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the cells of the first line, and of the lines that follow."""
    with text_of(path) as file:
        lines = [line for line in islice(file, _PEEK) if line.strip()]
        if not lines:
            raise UserError(f"{path} is empty")
        rows = cells(lines, next((mark for mark in ("\t", ",") if mark in lines[0]), None))
    return rows[0], rows[1:]
