"""Find genes in a file by symbol, earlier symbol, alias or Ensembl id.

A name is first looked up among the file's own names. Otherwise both sides are translated to HGNC's
approved symbols: by Ensembl id (without version), approved symbol, earlier symbol, alias, in this
order; an earlier symbol or alias that two genes share is not translated.
"""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENSEMBL = re.compile(r"^(ENSG\d{11})(\.\d+)?$")
_SEPARATORS = re.compile(r"[\t|]")


@dataclass(frozen=True)
class Match:
    """The positions of requested genes in a file.

    Parameters
    ----------
    index
        One entry per requested name: the gene's number, -1 if the file has no such gene.
    unmatched
        The names without a gene, in the order requested.
    renamed
        Requested name to the file's name, where they differ.
    """

    index: NDArray[np.int64]
    unmatched: tuple[str, ...]
    renamed: dict[str, str]

    @property
    def found(self) -> NDArray[np.int64]:
        """The numbers of the genes found, each once, in the order requested."""
        numbers = self.index[self.index >= 0]
        _, first = np.unique(numbers, return_index=True)
        return numbers[np.sort(first)]


class GeneIndex:
    """The genes of a file, which can be looked up under all their names.

    Parameters
    ----------
    genes
        The file's names, in order. If a name occurs twice, the first gene has it.
    ids
        Ensembl ids of the same genes, if the file has them in a column.
    """

    def __init__(self, genes: Iterable[Any], ids: NDArray[Any] | None = None) -> None:
        self.genes = [str(gene) for gene in genes]
        self._exact = {gene: i for i, gene in reversed(list(enumerate(self.genes)))}
        self._ids = None if ids is None else [str(name) for name in ids]
        self._translated: dict[str, int] = {}
        if self._ids is not None:
            for i, name in reversed(list(enumerate(self._ids))):
                self._exact.setdefault(_unversioned(name), i)

    @functools.cached_property
    def _approved(self) -> dict[str, int]:
        """Gene numbers by approved symbol, computed when first needed."""
        return self._places(range(len(self.genes)), _all_names())

    def _places(self, numbers: Sequence[int], names: _Names) -> dict[str, int]:
        """Return the numbers of some genes by approved symbol; of equal symbols, the first."""
        found: dict[str, int] = {}
        for i in reversed(numbers):
            symbol = names.approved(self.genes[i])
            if symbol is None and self._ids is not None:
                symbol = names.approved(self._ids[i])
            if symbol is not None:
                found[symbol] = i
        return found

    def find(self, name: str) -> int:
        """Return the number of the gene with this name, or -1."""
        hit = self._as_in_file(name)
        if hit is not None:
            return hit
        symbol = approved(name)
        return -1 if symbol is None else self._approved.get(symbol, -1)

    def _as_in_file(self, name: str) -> int | None:
        return self._exact.get(name, self._exact.get(_unversioned(name)))

    def _translate(self, names: set[str]) -> dict[str, int]:
        """Find genes that have another name in the file.

        Of HGNC's table, only the lines that contain one of the names, or another name of one of
        these genes, are parsed: a tenth of the time of parsing all lines.
        """
        symbols = _Names(_lines_with(names))
        sought = {name: symbols.approved(name) for name in names}
        lines = symbols.lines_of({symbol for symbol in sought.values() if symbol})
        known = {name.casefold() for line in lines for name in _SEPARATORS.split(line)} - {""}
        ids = self._ids or [""] * len(self.genes)
        either = [
            i
            for i, (gene, own) in enumerate(zip(self.genes, ids, strict=True))
            if _key(gene) in known or _key(own) in known
        ]
        symbols = _Names(_lines_with(known | {self.genes[i] for i in either}))
        place = self._places(either, symbols)
        return {name: place.get(symbol or "", -1) for name, symbol in sought.items()}

    def match(self, names: Iterable[str]) -> Match:
        """Find many genes at once, as `find` does, without a table of all human genes.

        Parameters
        ----------
        names
            Symbols, former symbols, aliases or Ensembl ids.

        Returns
        -------
        Match
            The gene of each name, the names without a gene, and those that were translated.
        """
        wanted = list(names)
        found = {name: self._as_in_file(name) for name in wanted}
        left = {name for name, i in found.items() if i is None} - self._translated.keys()
        if left:
            self._translated |= self._translate(left)
        places = [self._translated[name] if (i := found[name]) is None else i for name in wanted]
        index = np.array(places, np.int64)
        return Match(
            index,
            tuple(name for name, i in zip(wanted, index, strict=True) if i < 0),
            {
                name: self.genes[i]
                for name, i in zip(wanted, index, strict=True)
                if i >= 0 and self.genes[i] != name
            },
        )


def approved(name: str) -> str | None:
    """Return HGNC's approved symbol for any name of a human gene, in any case, or None."""
    return _all_names().approved(name)


def ensembl_column(source: Any) -> NDArray[Any] | None:
    """Return the var column that holds Ensembl ids, if there is one."""
    for column in source.var_columns:
        values = source.var(column).values
        first = next((str(v) for v in values[:50] if v is not None), "")
        if _ENSEMBL.match(first):
            return np.array(["" if v is None else str(v) for v in values])
    return None


def _unversioned(name: str) -> str:
    hit = _ENSEMBL.match(name)
    return hit[1] if hit else name


def _key(name: str) -> str:
    return _unversioned(name).casefold()


class _Names:
    """Approved symbols by name, from some lines of the table: all lines that have a name, or none.

    A line is a symbol, an Ensembl id, earlier symbols and aliases.
    """

    def __init__(self, lines: list[str]) -> None:
        self._rows = [line.split("\t") for line in lines]

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """Every unambiguous name with its approved symbol."""
        names: dict[str, str | None] = {}
        for column in (3, 2):  # aliases, then earlier symbols: the later of these overrules
            seen: dict[str, str | None] = {}
            for row in self._rows:
                if row[column]:
                    symbol = row[0]
                    for name in row[column].split("|"):
                        if seen.setdefault(name, symbol) != symbol:
                            seen[name] = None
            names.update(seen)
        names.pop("", None)
        names.update((row[0], row[0]) for row in self._rows)
        names.update((row[1], row[0]) for row in self._rows if row[1])
        return {name: symbol for name, symbol in names.items() if symbol}

    @functools.cached_property
    def _folded(self) -> dict[str, str]:
        """The same for lookup without case."""
        folded: dict[str, str | None] = {}
        for name, symbol in self._names.items():
            key = name.casefold()
            if folded.setdefault(key, symbol) != symbol:
                folded[key] = None
        return {name: symbol for name, symbol in folded.items() if symbol}

    def approved(self, name: str) -> str | None:
        """Return the symbol of a name, in any case."""
        name = _unversioned(name)
        return self._names.get(name) or self._folded.get(name.casefold())

    def lines_of(self, symbols: set[str]) -> list[str]:
        """Return the lines of some genes."""
        return ["\t".join(row) for row in self._rows if row[0] in symbols]


@functools.cache
def _lines() -> list[str]:
    packed = resources.files("vcell.genes").joinpath("genes.tsv.gz").read_bytes()
    return gzip.decompress(packed).decode().splitlines()


@functools.cache
def _all_names() -> _Names:
    return _Names(_lines())


def _lines_with(names: set[str]) -> list[str]:
    """Return the lines that have one of some names, in any case."""
    wanted = {_key(name) for name in names} - {""}
    lines = _lines()
    each, line_of = _each_name()
    hits = {i for name, i in zip(each, line_of, strict=True) if name in wanted}
    return [lines[i] for i in sorted(hits)]


@functools.cache
def _each_name() -> tuple[list[str], list[int]]:
    """Return every name, without its case, and the number of its line."""
    lines = _lines()
    counts = [line.count("|") + line.count("\t") + 1 for line in lines]
    each = "|".join(lines).casefold().replace("\t", "|").split("|")
    return each, np.repeat(np.arange(len(lines)), counts).tolist()
