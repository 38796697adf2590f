"""The graphs of an organism: genes, and one relation for each kind of edge, with storage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vcell import outputs
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.graph.relation import Relation, index_type

FILE = "graphs.json"
_SCHEMA = 1


@dataclass(frozen=True)
class RelationCounts:
    """Counts from reading a relation.

    Attributes
    ----------
    lines
        Edges in the file.
    self_loops, duplicates
        Edges left out: self-loops, and repeated pairs.
    unknown_edges, unknown_genes
        Edges left out because an end is not a gene of the table, and the number of such names.
    both_ways
        Pairs stored in both directions.
    edges
        Edges that remain.
    """

    lines: int = 0
    self_loops: int = 0
    duplicates: int = 0
    unknown_edges: int = 0
    unknown_genes: int = 0
    both_ways: int = 0
    edges: int = 0


@dataclass(frozen=True, eq=False)
class GeneGraphs:
    """Genes and the relations between them.

    Attributes
    ----------
    genes
        The N names, in order; a gene may have no edges.
    relations
        One for each kind of edge, all over the same genes.
    counts
        Counts from reading the files, by relation; empty if no file was read.
    notes
        Messages about what was detected and left out.
    """

    genes: tuple[str, ...]
    relations: tuple[Relation, ...]
    counts: dict[str, RelationCounts]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the relations."""
        return tuple(relation.name for relation in self.relations)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def n_edges(self) -> int:
        """Number of stored edges of all relations."""
        return sum(relation.n_edges for relation in self.relations)

    def __getitem__(self, name: str) -> Relation:
        """Return a relation by its name."""
        for relation in self.relations:
            if relation.name == name:
                return relation
        raise UserError(f"there is no graph {name!r}", hint=f"there are {', '.join(self.names)}")

    def __iter__(self) -> Iterator[Relation]:
        """Iterate over the relations."""
        return iter(self.relations)

    def degree(self, name: str | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return (N,) numbers of neighbours, in either direction, in one relation or in all."""
        return (self.union() if name is None else self[name]).degree("both")

    def isolated(self) -> list[str]:
        """Return the genes without edges to other genes."""
        covered = np.zeros(self.n_genes, bool)
        for relation in self.relations:
            covered |= relation.covered()
        return [self.genes[i] for i in np.flatnonzero(~covered)]

    def union(self) -> Relation:
        """Return one relation with the edges of all, without weights."""
        ends = [(relation.indices.astype(np.int32), relation.targets) for relation in self]
        made, _, _ = Relation.from_edges(
            "union", np.concatenate([s for s, _ in ends]), np.concatenate([t for _, t in ends]),
            self.n_genes, directed=all(relation.directed for relation in self),
        )  # fmt: skip
        return made

    def rewired(self, seed: int = 0) -> GeneGraphs:
        """Return graphs with the same degrees and random edges, a control for any claim."""
        made = [r.rewired(seed + 7919 * i) for i, r in enumerate(self.relations)]
        notes = tuple(
            f"{relation.name}: rewired with seed {seed}, every degree kept, {new:.0%} of the "
            "edges are new"
            for relation, new in made
        )
        return replace(self, relations=tuple(r for r, _ in made), notes=notes)

    def onto(self, genes: Sequence[str]) -> GeneGraphs:
        """Return the graphs over other genes, matched by all their names.

        Genes that the graphs do not have get no edges; edges of other genes are left out, counted
        in `counts` and described in `notes`.

        Raises
        ------
        UserError
            If no gene is in common.
        """
        index = GeneIndex(genes).match(self.genes).index
        if not (index >= 0).any():
            raise UserError(
                f"the graphs have no gene in common with the {len(genes):,} genes: they name "
                f"{', '.join(self.genes[:3])}, the genes are {', '.join(list(genes)[:3])}",
                hint="are both of the same species, and both names or both ids?",
            )
        relations, counts = [], {}
        for relation in self.relations:
            source, target = index[relation.indices], index[relation.targets]
            kept = (source >= 0) & (target >= 0)
            weights = None if relation.weights is None else relation.weights[kept]
            made, loops, twice = Relation.from_edges(
                relation.name, source[kept], target[kept], len(genes), weights,
                directed=relation.directed,
            )  # fmt: skip
            relations.append(made)
            counts[relation.name] = RelationCounts(
                relation.n_edges, loops, twice, int(len(kept) - kept.sum()),
                int((index < 0).sum()), made.n_both_ways, made.n_edges,
            )  # fmt: skip
        known = len(np.unique(index[index >= 0]))
        note = f"{known:,} of {len(genes):,} genes are in the graphs"
        return GeneGraphs(tuple(genes), tuple(relations), counts, (note,))

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write a folder: ``graphs.json`` and one .npy per array."""
        outputs.check(path, overwrite=overwrite)
        with outputs.folder(path, listed_in=FILE) as aside:
            entries = []
            for i, relation in enumerate(self.relations):
                np.save(aside / f"{i}.indptr.npy", relation.indptr)
                np.save(aside / f"{i}.indices.npy", relation.indices)
                if relation.weights is not None:
                    np.save(aside / f"{i}.weights.npy", relation.weights)
                entries.append(
                    {"name": relation.name, "directed": relation.directed,
                     "edges": relation.n_edges, "weights": relation.weights is not None}
                )  # fmt: skip
            about = {"schema": _SCHEMA, "genes": list(self.genes), "relations": entries,
                     "notes": list(self.notes)}  # fmt: skip
            (aside / FILE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> GeneGraphs:
        """Memory-map a folder from `save`; arrays are read from disk when used."""
        try:
            about = json.loads((path / FILE).read_text(encoding="utf-8"))
            if about["schema"] > _SCHEMA:
                raise UserError(f"{path} was written by a newer vcell")
            genes = tuple(map(str, about["genes"]))
            relations = tuple(
                _mapped(path, i, entry, len(genes)) for i, entry in enumerate(about["relations"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not hold gene graphs: {error}") from None
        return cls(genes, relations, {}, tuple(map(str, about.get("notes", ()))))


def _mapped(path: Path, i: int, entry: dict[str, Any], n_genes: int) -> Relation:
    def array(kind: str) -> Any:
        return np.load(path / f"{i}.{kind}.npy", mmap_mode="r", allow_pickle=False)

    indptr, indices = array("indptr"), array("indices")
    weights = array("weights") if entry["weights"] else None
    sound = (
        indptr.dtype == np.int64
        and indices.dtype == index_type(n_genes)
        and indptr.shape == (n_genes + 1,)
        and int(indptr[0]) == 0
        and bool((np.diff(indptr) >= 0).all())
        and indices.shape == (int(indptr[-1]),) == (entry["edges"],)
        and (not len(indices) or int(indices.max()) < n_genes)
        and (weights is None or (weights.dtype == np.float32 and weights.shape == indices.shape))
    )
    if not sound:
        raise ValueError(f"the arrays of {entry['name']!r} do not fit together")
    return Relation(str(entry["name"]), indptr, indices, weights, bool(entry["directed"]))


def saved(path: Path) -> bool:
    """Whether a folder was written by `GeneGraphs.save`."""
    return (path / FILE).is_file()


def distinct(names: Iterable[str]) -> list[str]:
    """Return names that occur more than once."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
