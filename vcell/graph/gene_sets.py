"""Tables of perturbed gene sets with one value each: trigenic interactions, growth, any other.

A row is a set of genes and its measured value. Kuzmin's tables (strain ids, tau) are read as
published, and so are maps of all pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.genes.names import approved
from vcell.graph.layout import cells, is_number, lower, reader
from vcell.screen.targets import members as targets_of
from vcell.screen.targets import parts
from vcell.suggest import few
from vcell.text_files import text_of

_QUERY, _ARRAY = "query strain id", "array strain id"
_TAU = "adjusted genetic interaction score (epsilon or tau)"
_HO = "YDL227C"  # the neutral locus HO, deleted in place of a gene
_ORF = re.compile(r"^(Y[A-P][LR]\d{3}[WC](-[A-Z])?|Q\d{4})$")
_GENE = re.compile(r"^(gene|orf|target)[ _]?([a-h1-8])?$")
_SETS = ("genes", "set", "gene_set", "perturbation")  # one column, A+B+C
_VALUES = ("tau", "epsilon", "value", "score", "fitness", "phenotype", "gamma", "y", _TAU)
_P_VALUES = ("p_value", "p-value", "p value", "pvalue", "p")


@dataclass(frozen=True, eq=False)
class GeneSetTable:
    """T sets of at most S genes, each with a value.

    Attributes
    ----------
    genes
        Every gene of the table once, sorted.
    members
        (T, S) int32 places in `genes`, -1 beyond the end of a smaller set.
    values, p_values
        (T,), or None if the table has none.
    query
        (T,) int64: rows with the same number share a query strain (Kuzmin: its pair of genes); None
        if the table names none.
    notes
        Messages about what was detected and left out.
    """

    genes: tuple[str, ...]
    members: NDArray[np.int32]
    values: NDArray[np.float64] | None = None
    p_values: NDArray[np.float64] | None = None
    query: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_sets(self) -> int:
        """Number of sets."""
        return len(self.members)

    def places(self, genes: Sequence[str]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Return `members` as indices into other genes, and the names that these lack.

        A missing gene has index -1, like padding: compare with `self.members`.
        """
        match = GeneIndex(genes).match(self.genes)
        table = np.append(match.index, -1).astype(np.int32)
        return table[self.members], match.unmatched


def read_gene_sets(path: Path) -> GeneSetTable:
    """Read a table of gene sets: separated by commas, tabs or blanks, gzipped or not.

    Raises
    ------
    UserError
        If it is not such a table, or a set names a gene twice.
    """
    with text_of(path) as file:
        head = [line for line in islice(file, 3) if line.strip()]
        if not head:
            raise UserError(f"{path} is empty")
        mark = next((m for m in ("\t", ",") if m in head[0]), None)
        first = cells(head, mark)
    if len(first) > 2 and len(first[0]) > 3 and first[1][0] == first[0][1] != first[0][0]:
        return _square(path, mark)
    columns = _columns(path, first)
    code: dict[str, int] = {}
    queries: dict[tuple[str, ...], int] = {}
    sets: list[list[int]] = []
    neutral = 0
    query: list[int] = []
    values: list[float] = []
    p_values: list[float] = []
    for number, row in _lines(path, mark, len(first[0])):
        if number == 1 and columns.headed:
            continue
        named, of_query = columns.genes_of(row)
        genes = [gene for gene in named if not _neutral(gene)]
        if named and not genes:
            neutral += 1
            continue
        if len(set(genes)) < len(genes):
            twice = next(gene for gene in genes if genes.count(gene) > 1)
            raise UserError(f"{path}:{number}: {twice} is named twice in one set")
        if not genes:
            raise UserError(f"{path}:{number}: this set has no gene")
        sets.append([code.setdefault(gene, len(code)) for gene in genes])
        if of_query:
            query.append(queries.setdefault(of_query, len(queries)))
        for column, kept in ((columns.value, values), (columns.p_value, p_values)):
            if column is not None:
                kept.append(_number(path, number, row[column]))
    if not sets:
        raise UserError(f"{path} holds no gene sets, only a header")
    same, notes = _one_name_each(code)
    names = sorted(set(code) - set(same))
    place = {name: i for i, name in enumerate(names)}
    order = np.array([*(place[same.get(name, name)] for name in code), -1], np.int32)
    width = max(map(len, sets))
    members = order[np.array([one + [-1] * (width - len(one)) for one in sets], np.int32)]
    _refuse_twice(path, members, names)
    sizes = np.bincount([len(one) for one in sets])
    shown = ", ".join(f"{n:,} of {size}" for size, n in enumerate(sizes) if n)
    value = first[0][columns.value] if columns.value is not None and columns.headed else ""
    note = f"{path} ({columns.what}): {console.count(len(sets), 'set')} of {len(names):,} genes "
    note += f"({shown})"
    note += f", values from {value}" if value else ""
    if neutral:
        notes.append(f"left out, controls alone: {console.count(neutral, 'line')}")
    return GeneSetTable(
        tuple(names),
        members,
        np.array(values) if values else None,
        np.array(p_values) if p_values else None,
        np.array(query, np.int64) if query else None,
        (note, *notes),
    )


@cache
def _neutral(gene: str) -> bool:
    """Whether a name stands for no gene: a control's, or that of the neutral locus."""
    return gene.upper() in (_HO, "HO") or not targets_of(gene)


def _one_name_each(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return which names are other names of a gene of the table, and notes about names.

    HGNC's names are only used where most names are human: some yeast genes have names that are
    aliases of human genes.
    """
    every = sorted(names)
    orfs = sum(bool(_ORF.match(name)) for name in every)
    if orfs:
        if orfs == len(every):
            return {}, []
        other = [name for name in every if not _ORF.match(name)]
        note = f"{orfs:,} genes have systematic names and {len(other):,} others ({few(other)}): "
        return {}, [note + "a gene with names of both kinds counts as two genes"]
    symbol = {name: found for name in every if (found := approved(name))}
    if 2 * len(symbol) < len(every):
        return {}, []
    several = {found for found, n in Counter(symbol.values()).items() if n > 1}
    kept: dict[str, str] = {}
    for name in sorted(symbol, key=lambda name: name != symbol[name]):
        if symbol[name] in several:
            kept.setdefault(symbol[name], name)
    same = {
        name: kept[found]
        for name, found in symbol.items()
        if found in several and kept[found] != name
    }
    told = [f"{name} is {gene}" for name, gene in same.items()]
    return same, [f"two names of one gene are read as one: {few(told)}"] if told else []


def _refuse_twice(path: Path, members: NDArray[np.int32], names: list[str]) -> None:
    """Refuse a set that names a gene under two names."""
    order = np.sort(members, 1)
    twice = (order[:, 1:] == order[:, :-1]) & (order[:, 1:] >= 0)
    if twice.any():
        gene = names[order[:, 1:][twice][0]]
        raise UserError(f"{path}: {gene} is in one set under two names")


def _lines(path: Path, mark: str | None, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line; refuse one with fewer than `width` cells."""
    with text_of(path) as file:
        rows = (line.split() for line in file) if mark is None else reader(file, mark)
        for number, row in enumerate(rows, 1):
            if not any(cell.strip() for cell in row):
                continue
            if len(row) < width:
                raise UserError(
                    f"{path}:{number}: {console.count(len(row), 'column')}, the first line has "
                    f"{width}"
                )
            yield number, row


def _square(path: Path, mark: str | None) -> GeneSetTable:
    """Read a symmetric map of all pairs, with the same genes in rows and columns."""
    with text_of(path) as file:
        rows = cells([line for line in file if line.strip()], mark)
    head, body = rows[0][1:], rows[1:]
    if [row[0] for row in body] != head or any(len(row) != len(rows[0]) for row in body):
        raise UserError(f"{path} is a map of pairs whose rows and columns name other genes")
    if len(set(head)) < len(head):
        twice = next(gene for gene in head if head.count(gene) > 1)
        raise UserError(f"{path} names {twice} twice")
    values = np.array(
        [[_number(path, i, cell) for cell in row[1:]] for i, row in enumerate(body, 2)]
    )
    if not np.allclose(values, values.T, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise UserError(f"{path} gives different values for A with B and for B with A")
    one, other = np.triu_indices(len(head), 1)
    kept = np.isfinite(values[one, other])
    same, notes = _one_name_each(head)
    if same:
        name, gene = next(iter(same.items()))
        raise UserError(f"{path} names {gene} twice, once as {name}")
    names = sorted(gene for gene in head if not _neutral(gene))
    place = {gene: i for i, gene in enumerate(names)}
    at = np.array([place.get(gene, -1) for gene in head], np.int32)
    members = np.stack([at[one[kept]], at[other[kept]]], 1)
    members = np.where(members[:, :1] < 0, members[:, ::-1], members)
    there = members[:, 0] >= 0
    members, found = members[there], values[one, other][kept][there]
    sizes = "all of 2" if (members >= 0).all() else "of 1 and 2"
    note = f"{path} (map of all pairs): {len(members):,} sets of {len(names):,} genes, {sizes}"
    return GeneSetTable(tuple(names), members, found, notes=(note, *notes))


@dataclass(frozen=True)
class _SetColumns:
    """The columns of genes, and of the value."""

    what: str
    genes: tuple[int, ...]
    value: int | None
    p_value: int | None
    headed: bool
    strains: bool = False
    joined: bool = False

    def genes_of(self, row: list[str]) -> tuple[list[str], tuple[str, ...]]:
        """Return the genes of a row, and those of its query strain."""
        named = [row[i].strip() for i in self.genes]
        if self.strains:
            query, other = (parts(strain.split("_")[0]) for strain in named)
            query, other = ([g for g in part if g and not _neutral(g)] for part in (query, other))
            return query + other or [_HO], tuple(sorted(query)) or (_HO,)
        if self.joined:
            named = [gene.strip() for gene in parts(named[0])]
        return [gene for gene in named if gene], ()


def _columns(path: Path, rows: list[list[str]]) -> _SetColumns:
    head = lower(rows[0])
    body = rows[1] if len(rows) > 1 else rows[0]
    p_value = next((head.index(name) for name in _P_VALUES if name in head), None)
    named = next((head.index(name) for name in _VALUES if name in head), None)
    if _QUERY in head and _ARRAY in head:
        return _SetColumns(
            "Kuzmin's strains", (head.index(_QUERY), head.index(_ARRAY)), named, p_value,
            headed=True, strains=True,
        )  # fmt: skip
    genes = tuple(i for i, name in enumerate(head) if _GENE.match(name))
    joined = next((head.index(name) for name in _SETS if name in head), None)
    headed = bool(genes) or joined is not None or named is not None
    if len(genes) < 2 and (joined is not None or genes):
        genes = (genes[0],) if joined is None else (joined,)
        what = f"sets in {rows[0][genes[0]]}"
    elif not genes:
        genes = tuple(i for i, cell in enumerate(body) if cell and not is_number(cell))
        what = f"genes in {console.count(len(genes), 'column')}"
        if not genes:
            raise UserError(
                f"{path} names no genes", hint="columns gene_1, gene_2, gene_3 and value are read"
            )
    else:
        what = f"genes in {console.count(len(genes), 'column')}"
    if named is None:
        named = next(
            (i for i, cell in enumerate(body) if i not in genes and i != p_value
             and is_number(cell)), None,
        )  # fmt: skip
    return _SetColumns(what, genes, named, p_value, headed, joined=len(genes) == 1)


def _number(path: Path, number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path}:{number}: the value is {text.strip()!r}, not a number") from None
