"""Graphs of genes for a screen: features of targets, and the part that a run stores.

Each graph gives a block of features, by a walk along its edges (`vcell.graph.diffusion`). The run
keeps the edges between measured genes, so that the files are not needed again.
N genes, K graphs, E edges of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.screen.features import FeatureBlock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.graph import GeneGraphs
    from vcell.screen.screen import Screen

_FEW = 0.05  # warn below this share of genes in common: perhaps another species


def read_graphs(
    paths: Sequence[Path], genes: Sequence[str], targets: Sequence[str]
) -> GeneGraphs | None:
    """Read edge lists; report how many measured genes and targets each covers.

    Raises
    ------
    UserError
        A file is not an edge list, or has no gene in common with the screen.
    """
    if not paths:
        return None
    from vcell.graph import read  # numba, which most screens do without

    graphs = read(paths)
    for note in graphs.notes:
        console.say(note)
    measured, wanted = (GeneIndex(some).match(graphs.genes).index for some in (genes, targets))
    files = ", ".join(map(str, paths))
    for relation in graphs:
        joined = relation.covered()
        n_measured, n_wanted = (len(set(i[joined & (i >= 0)])) for i in (measured, wanted))
        if not n_measured + n_wanted:
            example = ", ".join(graphs.genes[i] for i in np.flatnonzero(joined)[:3])
            raise UserError(
                f"{files}: {relation.name} has no gene in common with the cells: it joins "
                f"{example}, the cells have {', '.join(list(genes)[:3])}",
                hint="gene names must be those of the cells, of the same species",
            )
        text = (
            f"graph {relation.name}: it joins {n_wanted} of {len(targets)} targets and "
            f"{n_measured:,} of {len(genes):,} measured genes"
        )
        console.say(text)
        if n_measured < _FEW * min(len(genes), int(joined.sum())):
            console.warn(f"{text}: is it of the same species, and both names or both ids?")
    return graphs


def blocks_of(graphs: GeneGraphs) -> list[FeatureBlock]:
    """Return one block of features per graph, of the genes that have an edge in it."""
    from vcell.graph.diffusion import embedding

    found = []
    for relation in graphs:
        genes, values = embedding(relation)
        found.append(FeatureBlock(relation.name, [graphs.genes[i] for i in genes], values))
    return found


def stored_fields(graphs: GeneGraphs | None, genes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the fields of a screen that hold the edges between its genes, each pair once."""
    if graphs is None:
        return {}
    ends, weights = [np.zeros((2, 0), np.int32)], [np.zeros(0, np.float32)]
    if not (GeneIndex(genes).match(graphs.genes).index >= 0).any():  # only targets have edges
        return {
            "graph_names": np.array(graphs.names, np.str_),
            "graph_sizes": np.zeros(len(graphs.names), np.int64),
        }
    own = graphs.onto(genes)
    for relation in own:
        both = relation.both()
        once = both.indices < both.targets
        ends.append(np.stack([both.indices, both.targets])[:, once].astype(np.int32))
        weights.append(np.ones(once.sum(), np.float32) if both.weights is None
                       else both.weights[once])  # fmt: skip
    return {
        "graph_names": np.array(own.names, np.str_),
        "graph_sizes": np.array([len(one) for one in weights[1:]], np.int64),
        "graph_ends": np.concatenate(ends, axis=1),
        "graph_weights": np.concatenate(weights),
    }


def graphs_of(screen: Screen, genes: Sequence[str]) -> GeneGraphs | None:
    """Return the graphs stored in the screen, restricted to `genes`; None if it has none."""
    if not len(screen.graph_names):
        return None
    from vcell.graph import GeneGraphs, Relation

    number = {gene: i for i, gene in enumerate(genes)}
    place = np.array([number.get(str(gene), -1) for gene in screen.genes], np.int64)
    relations, start = [], 0
    for name, size in zip(screen.graph_names, screen.graph_sizes, strict=True):
        source, target = place[screen.graph_ends[:, start : start + size]]
        there = (source >= 0) & (target >= 0)
        weights = screen.graph_weights[start : start + size][there]
        made, _, _ = Relation.from_edges(
            str(name), source[there], target[there], len(genes), weights
        )
        relations.append(made)
        start += int(size)
    return GeneGraphs(tuple(genes), tuple(relations), {})
