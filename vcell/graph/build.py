"""From edge lists to graphs: names to genes, edges to CSR, with counts of what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.graph.edges import EdgeList, read_edges
from vcell.graph.gene_graphs import GeneGraphs, RelationCounts, distinct, saved
from vcell.graph.relation import Relation

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read(
    paths: Sequence[Path],
    genes: Sequence[str] | None = None,
    *,
    ids: Path | None = None,
    weight: str | None = None,
    minimum: float | None = None,
) -> GeneGraphs:
    """Read edge lists, or folders from `GeneGraphs.save`, as graphs over the same genes.

    Parameters
    ----------
    genes
        The genes, in order; names in files are matched by symbol, earlier symbol, alias and Ensembl
        id. None: all genes that the files name, sorted.
    ids, weight, minimum
        See `read_edges`.

    Raises
    ------
    UserError
        If a file is not an edge list, or has no gene in common with the others or with `genes`.
    """
    if not paths:
        raise UserError("no graph is named", hint="--graph FILE names an edge list")
    if len(paths) == 1 and saved(paths[0]):
        graphs = GeneGraphs.open(paths[0])
        return graphs if genes is None else graphs.onto(genes)
    index, known = (None, None) if genes is None else _index(genes)
    lists: list[tuple[Path, EdgeList]] = []
    for path in paths:
        found = (
            _lists_of(path)
            if saved(path)
            else read_edges(path, ids=ids, weight=weight, minimum=minimum, known=known)
        )
        lists += [(path, one) for one in found]
    twice = distinct(one.relation for _, one in lists)
    if twice:
        raise UserError(f"two graphs are called {twice[0]!r}", hint="rename one of the files")
    if index is None:
        index, _ = _index(_all_genes(lists))
    relations, counts, notes = [], {}, []
    for path, one in lists:
        relation, count, note = _relation(path, one, index)
        notes.append(note)
        if relation.n_edges:
            relations.append(relation)
            counts[relation.name] = count
        elif not any(other[0] == path and other[1] is not one for other in lists):
            raise UserError(note)
    if not relations:
        raise UserError("; ".join(notes))
    return GeneGraphs(tuple(index.genes), tuple(relations), counts, tuple(notes))


def _index(genes: Sequence[str]) -> tuple[GeneIndex, Callable[[str], bool]]:
    if len(genes) < 2:
        raise UserError(f"a graph needs at least two genes, and there is {len(genes)}")
    index = GeneIndex(genes)
    return index, lambda name: index.find(name) >= 0


def _lists_of(path: Path) -> list[EdgeList]:
    graphs = GeneGraphs.open(path)
    return [
        EdgeList(r.name, list(graphs.genes), r.indices.astype(np.int32), r.targets, r.weights,
                 r.directed, "saved graphs")
        for r in graphs
    ]  # fmt: skip


def _all_genes(lists: list[tuple[Path, EdgeList]]) -> list[str]:
    """Return the genes of all lists, each under one name; several files must share some."""
    genes: list[str] = []
    files: dict[Path, None] = {}
    for path, one in lists:
        index = GeneIndex(genes)
        names = [one.names[i] for i in np.union1d(one.source, one.target)]
        places = [index.find(name) for name in names]
        if genes and path not in files and max(places, default=-1) < 0:
            raise UserError(
                f"{path} has no gene in common with {next(iter(files))}: it names "
                f"{', '.join(one.names[:3])}, that one {', '.join(genes[:3])}",
                hint="are both of the same species, and both names or both ids?",
            )
        files[path] = None
        genes += [name for name, i in zip(names, places, strict=True) if i < 0]
    return sorted(set(genes))


def _relation(path: Path, one: EdgeList, index: GeneIndex) -> tuple[Relation, RelationCounts, str]:
    place, how = _places(path, one, index)
    source, target = place[one.source], place[one.target]
    kept = (source >= 0) & (target >= 0)
    weights = None if one.weight is None else one.weight[kept]
    relation, loops, duplicates = Relation.from_edges(
        one.relation, source[kept], target[kept], len(index.genes), weights, directed=one.directed
    )
    lost = int((place < 0).sum())
    count = RelationCounts(
        len(source), loops, duplicates, int(len(kept) - kept.sum()), lost, relation.n_both_ways,
        relation.n_edges,
    )  # fmt: skip
    if loops and loops == int(kept.sum()):
        return relation, count, f"{path}: {one.relation} joins every gene with itself only"
    if not relation.n_edges:
        among = f"two of the {len(index.genes):,} genes"
        return relation, count, f"{path}: no edge of {one.relation} joins {among}"
    return relation, count, _note(path, one, count, how)


def _places(path: Path, one: EdgeList, index: GeneIndex) -> tuple[NDArray[np.int64], str]:
    """Return the gene of each name, -1 for none, and a description of the matching."""
    match = index.match(one.names)
    if (match.index >= 0).any():
        renamed = len(match.renamed)
        return (
            match.index,
            f"{console.count(renamed, 'gene')} under another name" if renamed else "",
        )
    if all(name.isdigit() for name in one.names):
        return _numbered(path, one, len(index.genes))
    raise UserError(
        f"{path} has no gene in common with the table of {len(index.genes):,} genes: it names "
        f"{', '.join(one.names[:3])}, the table {', '.join(index.genes[:3])}",
        hint="are both of the same species, and both names or both ids?",
    )


def _numbered(path: Path, one: EdgeList, n_genes: int) -> tuple[NDArray[np.int64], str]:
    """Interpret numbers as rows of the table: from 1, unless there is a 0."""
    places = np.array([int(name) for name in one.names], np.int64)
    first = 0 if (places == 0).any() else 1
    if places.max() - first >= n_genes:
        raise UserError(
            f"{path} numbers genes up to {places.max():,}, the table has {n_genes:,}",
            hint="the table must be the one that the numbers were made with",
        )
    return places - first, f"genes by their number in the table, from {first}"


def _note(path: Path, one: EdgeList, count: RelationCounts, how: str) -> str:
    """Describe what was read and what was left out."""
    if one.directed:
        way = "source to target"
    elif 2 * count.both_ways == count.edges:
        way = "every pair both ways"
    else:
        way = (
            f"{console.count(count.both_ways, 'pair')} both ways, the others one way as in the file"
        )
    unknown = console.count(count.unknown_genes, "unknown gene")
    left_out = [
        *one.left_out,
        *(
            console.count(n, what) + more
            for n, what, more in (
                (count.self_loops, "self-loop", ""),
                (count.duplicates, "duplicate", ""),
                (count.unknown_edges, "edge", f" of {unknown}"),
            )
            if n
        ),
    ]
    parts = [f"{path} ({one.what}): {one.relation}, {console.count(count.edges, 'edge')}, {way}"]
    parts += [how] if how else []
    parts += [f"left out: {', '.join(left_out)}"] if left_out else []
    return "; ".join(parts)
