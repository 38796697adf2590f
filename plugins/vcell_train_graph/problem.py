"""The input of a model: sets of genes with values, graphs, features, and the held-out sets.

There are two kinds of splits. In a random split, other sets of the same query pair are in the
training set. In a split by query pair, all sets of a pair are held out together, which tests pairs
that were never measured. If sets have two genes, genes are held out: a fifth of them, with all
their sets. In every split, all measurements of one set have the same part, and sets that would give
a held-out pair away are not learnt from.
T sets, S genes of a set at most, N genes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console, graph
from vcell.config.screen import parse_fold
from vcell.errors import UserError
from vcell.graph import GeneGraphs
from vcell.screen import tables
from vcell.screen.split import TEST, TRAIN, VALIDATION
from vcell.suggest import few
from vcell.train.command import as_typed

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_train_graph import TrainGraph

    Array = NDArray[np.float64]

RANDOM = "random"
APART = 3  # a part of its own: neither learnt from nor tested
_FEWEST = 20  # training sets
_MOST_GENES = 1 << 31  # numbers pairs of genes


@dataclass(frozen=True, eq=False)
class GraphProblem:
    """The data of a model.

    Attributes
    ----------
    genes
        (N,) names: those of the table first, then those found only in graphs.
    members
        (T, S) numbers of genes, -1 after the end of a set.
    values
        (T,)
    group
        (T,) number of the query pair; -1 if sets of two genes have none.
    part
        (T,) TRAIN, VALIDATION or TEST.
    graphs
        Over the N genes; original or rewired.
    features
        (N, F) of genes, 0 for genes without features; F may be 0.
    n_own
        Number of genes in the table.
    """

    genes: tuple[str, ...]
    members: NDArray[np.int64]
    values: Array
    group: NDArray[np.int64]
    same: NDArray[np.int64]
    part: NDArray[np.int8]
    graphs: GeneGraphs
    features: Array
    n_own: int

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which sets a model may learn from, or be chosen by."""
        return self.part < TEST

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training values."""
        known = self.values[self.known]
        return float(known.mean()), max(float(known.std()), 1e-12)

    @property
    def key(self) -> str:
        """A short text of everything that must not change when a run is resumed."""
        found = hashlib.blake2b(digest_size=8)
        for array in (self.members, self.values, self.part, self.features):
            found.update(np.ascontiguousarray(array).tobytes())
        for relation in self.graphs:
            found.update(np.ascontiguousarray(relation.indices).tobytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class GivenTable:
    """The contents of the files, shared by all runs of a command."""

    genes: tuple[str, ...]
    members: NDArray[np.int64]
    values: Array
    group: NDArray[np.int64]
    pair: NDArray[np.int64]  # the pair of genes that a group is named after, -1 for none
    same: NDArray[np.int64]  # equal where the set is the same
    graphs: GeneGraphs
    features: Array
    n_own: int
    by: str  # what the second kind of split holds out
    absent: tuple[str, ...]  # genes without an edge in any graph


def given(config: TrainGraph) -> GivenTable:
    """Read the files of a run; unchanged files are read once."""
    assert config.table is not None
    files = tuple((as_typed(p), p.stat().st_mtime_ns if p.exists() else 0)
                  for p in (config.table, *config.graph, *config.features))  # fmt: skip
    return _given(files, 1 + len(config.graph))


@lru_cache(maxsize=2)
def _given(files: tuple[tuple[Path, int], ...], n_graphs: int) -> GivenTable:
    paths = [path for path, _ in files]
    table = graph.read_gene_sets(paths[0])
    for note in table.notes:
        console.say(note)
    if table.values is None:
        raise UserError(
            f"{paths[0]} has sets of genes and no values",
            hint="a column of numbers called tau or value is needed to learn from",
        )
    members, values, query = _usable(table.members, table.values, table.query)
    own = table.genes
    if n_graphs > 1:
        graphs = graph.read(list(paths[1:n_graphs]))
        index = graph_places(graphs.genes, own)
        rest = [gene for gene, at in zip(graphs.genes, index, strict=True) if at < 0]
        if len(rest) == len(graphs.genes):
            raise UserError(
                f"the graphs have no gene in common with {paths[0]}: they name "
                f"{few(graphs.genes)}, the table names {few(own)}",
                hint="are both of the same species, and both names or both ids?",
            )
        graphs = graphs.onto((*own, *rest))
    else:
        graphs = graph.GeneGraphs(own, (), {})
    absent = tuple(sorted(set(own) & set(graphs.isolated()))) if n_graphs > 1 else ()
    for note in graphs.notes:
        console.say(note)
    if absent:
        n_absent = console.count(len(absent), "gene")
        console.say(f"in no graph, so predicted from other features: {n_absent} of the table: "
                    f"{few(absent)}")  # fmt: skip
    group, pair, by = _groups(members, query)
    same = _numbered(np.sort(members, 1))
    if again := len(same) - int(same.max()) - 1:
        console.say(f"measured before, so held out with the first: {console.count(again, 'set')}")
    console.say(f"{by} are held out in folds, in addition to a random split")
    features = _features(paths[n_graphs:], graphs.genes, own)
    return GivenTable(
        graphs.genes, members, values, group, pair, same, graphs, features, len(own), by, absent
    )


def graph_places(genes: tuple[str, ...], own: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the number in the table of each gene of the graphs, -1 for none."""
    from vcell.genes import GeneIndex

    return GeneIndex(own).match(genes).index


def _usable(
    members: NDArray[Any], values: Array, query: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], Array, NDArray[np.int64] | None]:
    """Leave out sets without a finite value, with a warning."""
    finite = np.isfinite(values)
    if not finite.all():
        console.warn(
            f"left out, without a finite value: {console.count(int((~finite).sum()), 'set')}"
        )
    if finite.sum() < _FEWEST:
        raise UserError(
            f"{console.count(int(finite.sum()), 'set')} with values: too few to learn from",
            hint=f"at least {_FEWEST} are needed",
        )
    if np.ptp(values[finite]) == 0:
        raise UserError("all sets have the same value, so there is nothing to learn")
    return (
        members[finite].astype(np.int64),
        values[finite],
        None if query is None else query[finite],
    )


def _numbered(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each row, by first appearance: equal where rows are equal."""
    _, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number.ravel()], np.int64)


def _pairs(members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (T, pairs) a number for each pair of genes of a set, -1 where there is none."""
    order = np.sort(members, 1)
    keys = [
        np.where(order[:, j] >= 0, order[:, j] * _MOST_GENES + order[:, i], -1)
        for i in range(members.shape[1])
        for j in range(i)
    ]
    return np.stack(keys, 1) if keys else np.full((len(members), 1), -1)


def _groups(
    members: NDArray[np.int64], query: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return the number of each set's query pair, the pair, and what a fold holds out."""
    if query is not None:
        named = _pairs(members[:, :2])[:, 0]
        # with two genes, one is of the query and one of the array
        named[(members >= 0).sum(1) < 3] = -1
        return np.unique(query, return_inverse=True)[1], named, "query pairs"
    if members.shape[1] < 3:
        none = np.full(len(members), -1)
        return none, none, "genes"
    console.say("the table names no query strains: the pair of a set's genes that most sets share "
                "is taken for it")  # fmt: skip
    pairs = _pairs(members)
    _, number, count = np.unique(pairs, return_inverse=True, return_counts=True)
    often = np.where(pairs >= 0, count[number].reshape(pairs.shape), 0)
    best = pairs[np.arange(len(pairs)), often.argmax(1)]
    return np.unique(best, return_inverse=True)[1], best, "pairs of genes"


def _features(paths: list[Path], genes: tuple[str, ...], own: tuple[str, ...]) -> Array:
    parts = []
    for path in paths:
        names, values = tables.read(path)
        at = graph_places(tuple(names), genes)
        if not (at >= 0).any():
            raise UserError(f"{path} has no gene in common with the table and the graphs")
        values = values - values.mean(0)
        part = np.zeros((len(genes), values.shape[1]))
        part[at[at >= 0]] = values[at >= 0] / max(float(values.std()), 1e-12)
        known = len({int(i) for i in at if 0 <= i < len(own)})
        console.say(f"features: {path} knows {known:,} of {len(own):,} genes of the table")
        parts.append(part)
    return np.concatenate(parts, 1) if parts else np.zeros((len(genes), 0))


def problem(config: TrainGraph) -> GraphProblem:
    """Build the data of one run: its split, and its graphs, original or rewired."""
    read = given(config)
    part = split(read, config)
    graphs, features = read.graphs, read.features
    if config.wiring == "rewired":
        graphs = _rewired(graphs, config.draw)
    elif config.wiring == "shuffled-features":
        order = np.random.default_rng((config.draw, 0x5F)).permutation(read.n_own)
        features = np.concatenate([features[: read.n_own][order], features[read.n_own :]])
    return GraphProblem(
        read.genes, read.members, read.values, read.group, read.same, part, graphs, features,
        read.n_own,
    )  # fmt: skip


@lru_cache(maxsize=3)
def _rewired(graphs: GeneGraphs, draw: int) -> GeneGraphs:
    return graphs.rewired(1 + draw)


def split(read: GivenTable, config: TrainGraph) -> NDArray[np.int8]:
    """Assign a part to each set. The test sets do not depend on the draw; validation sets do."""
    n, fold = len(read.values), config.fold or RANDOM
    part = np.full(n, TRAIN, np.int8)
    rng = np.random.default_rng((config.seed, 0x6A))
    groups = read.group if fold != RANDOM else read.same
    if fold == RANDOM:
        number = int(groups.max()) + 1
        part[np.isin(groups, rng.permutation(number)[: round(config.test_share * number)])] = TEST
    elif (groups < 0).all():  # pairs: a part of the genes, with all their sets
        k, of = parse_fold(fold)
        hidden = np.zeros(len(read.genes), bool)
        hidden[rng.permutation(read.n_own)[k - 1 :: of]] = True
        part[(hidden[read.members] & (read.members >= 0)).any(1)] = TEST
        groups = read.same
    else:
        k, of = parse_fold(fold)
        number = int(groups.max()) + 1
        if of > number:
            raise UserError(
                f"{console.count(number, 'query pair')} cannot be held out in {of} folds",
                hint="take fewer folds: --folds",
            )
        part[np.isin(groups, rng.permutation(number)[k - 1 :: of])] = TEST
        part[_gives_away(read, part == TEST)] = APART
    rest = np.unique(groups[part == TRAIN])
    chosen = np.random.default_rng((config.seed, 0x6B)).permutation(rest)
    chosen = chosen[: max(1, round(config.validation_share * len(rest)))]
    part[(part == TRAIN) & np.isin(groups, chosen)] = VALIDATION
    if (part == TRAIN).sum() < _FEWEST:
        raise UserError(
            f"left to learn from: {int((part == TRAIN).sum())} of {n} sets",
            hint=f"at least {_FEWEST} are needed: hold fewer out, or bring more sets",
        )
    return part


def _gives_away(read: GivenTable, test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which other sets contain a held-out pair, or are a held-out set of another query."""
    held = np.unique(read.pair[test])
    found = np.isin(_pairs(read.members), held[held >= 0]).any(1)
    return np.asarray((found | np.isin(read.same, read.same[test])) & ~test)


def inner_groups(problem: GraphProblem, fold: str | None) -> NDArray[np.int64]:
    """Return the groups (T,) that are left out together in training, as in the split."""
    if fold in (None, RANDOM) or (problem.group < 0).all():
        return problem.same
    return problem.group


def without_graphs(one: GraphProblem) -> GraphProblem:
    """Return the problem without graphs."""
    return dataclasses.replace(one, graphs=graph.GeneGraphs(one.genes, (), {}))
