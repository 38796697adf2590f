"""Geneformer's vocabularies: tokens of genes, and lookup of names.

V1 (gc30M) has 25,426 tokens, V2 (gc95M, also called gc104M) 20,275. Both are shipped; `read` reads
another one of the same format from a file.
"""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.text_files import decoded, read_bytes, unreadable

PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"
SIZES = {"V1": 25_426, "V2": 20_275}
_VERSIONED = re.compile(r"^(ENSGR?\d{10,11})\.\d+(_PAR_Y)?$")
_PAR_Y = re.compile(r"^ENSG0(\d{10})_PAR_Y$")
_OTHER_SPECIES = re.compile(r"^ENS(MUS|RNO|DAR|MMU|SSC|BTA|GAL|PTR|CAF|XET)G\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of genes.

    Attributes
    ----------
    name
        V1, V2, or the name of the file.
    ids, symbols
        ``[V]`` Ensembl id and symbol of each token; special tokens have their own name as id.
    medians
        ``[V]`` non-zero median of each gene; NaN for special tokens.
    names
        Further upper-case names (symbols, aliases, earlier ids), with their tokens.
    """

    name: str
    ids: NDArray[np.str_]
    symbols: NDArray[np.str_]
    medians: NDArray[np.float64]
    names: dict[str, int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def token(self) -> dict[str, int]:
        """Token of each id, and of each special token."""
        return {str(name): i for i, name in enumerate(self.ids)}

    @property
    def cls(self) -> int | None:
        """The token before a cell, in V2."""
        return self.token.get(CLS)

    @property
    def eos(self) -> int | None:
        """The token after a cell, in V2."""
        return self.token.get(EOS)

    @property
    def n_special(self) -> int:
        """Number of special tokens of a cell."""
        return 0 if self.cls is None else 2

    def label(self, token: int) -> str:
        """Return the symbol of a token, or its id if it has none."""
        return str(self.symbols[token] or self.ids[token])

    def find(self, name: str) -> int:
        """Return the token of one gene by any of its names, or -1."""
        return int(self.map([name]).token_of[0])

    def map(self, names: Iterable[str]) -> Mapping:
        """Find the token of every column of a file by its name, ignoring case."""
        names = [str(name).strip() for name in names]
        found = np.full(len(names), -1, np.int32)
        how = {"id": 0, "name": 0, "version": 0, "par_y": 0}
        for i, name in enumerate(names):
            token, way = self._find(name.upper())
            if token >= 0:
                found[i] = token
                how[way] += 1
        known = found[found >= 0]
        return Mapping(found, how, len(known) - len(np.unique(known)), _species(names))

    def _find(self, key: str) -> tuple[int, str]:
        token = self.token.get(key)
        if token is not None and token >= 2 and not key.startswith("<"):
            return token, "id"
        if key in self.names:
            return self.names[key], "name"
        versioned = _VERSIONED.match(key)
        if versioned:
            key = versioned[1] + (versioned[2] or "")
            token = self.token.get(key, self.names.get(key, -1))
            if token >= 0:
                return token, "version"
        par_y = _PAR_Y.match(key)  # GENCODE's later form of ENSGR
        if par_y:
            return self.token.get(f"ENSGR{par_y[1]}", -1), "par_y"
        return -1, "none"


@dataclass(frozen=True)
class Mapping:
    """The tokens of the columns of a file.

    Attributes
    ----------
    token_of
        ``[G]`` token of each column, -1 for none.
    how
        Numbers of columns found by id, by another name, by an id without its version, and as the
        copy on chromosome Y.
    n_shared
        Number of columns that share their token with another column: they are added up.
    species
        Another species that the names seem to be of, or "".
    """

    token_of: NDArray[np.int32]
    how: dict[str, int]
    n_shared: int
    species: str

    @property
    def n_found(self) -> int:
        """Number of columns with a token."""
        return int((self.token_of >= 0).sum())

    @property
    def text(self) -> str:
        """The result, as text for messages."""
        parts = [f"{self.n_found:,} of {len(self.token_of):,} columns have a token"]
        words = {
            "name": "by symbol, alias or earlier id",
            "version": "after its version was stripped from the id",
            "par_y": "as the copy on chromosome Y",
        }
        parts += [f"{self.how[way]:,} {text}" for way, text in words.items() if self.how[way]]
        if self.n_shared:
            parts.append(f"{self.n_shared:,} share one with another column and are added to it")
        return ", ".join(parts)


def shipped(name: str) -> Vocabulary:
    """Return V1 or V2."""
    return _shipped(name)


@functools.cache
def _shipped(name: str) -> Vocabulary:
    folder = resources.files("vcell.geneformer")
    rows = _rows(folder.joinpath(f"{name.lower()}.tsv.gz").read_bytes())
    base = _of_rows(name, rows, name)
    names = dict(base.names)
    for key, ensembl in _rows(folder.joinpath("names.tsv.gz").read_bytes()):
        token = base.token.get(ensembl)
        if token is not None and (name == "V2" or key not in names):
            names[key] = token
    return Vocabulary(name, base.ids, base.symbols, base.medians, names)


def read(path: Path) -> Vocabulary:
    """Read a vocabulary from a TSV (may be gzipped) of token, id, median and symbol."""
    try:
        packed = read_bytes(path)
        rows = _rows(packed, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if not rows:
        raise UserError(f"{path} names no token")
    return _of_rows(str(path), rows, str(path))


def _rows(packed: bytes, path: Path | str = "it") -> list[list[str]]:
    text = gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed
    return [line.split("\t") for line in decoded(path, text).splitlines()[1:] if line]


def _of_rows(name: str, rows: list[list[str]], where: str) -> Vocabulary:
    """Build a vocabulary of (id, token, median, symbol) and check that its tokens are 0, 1, ..."""
    n = len(rows)
    ids, symbols = np.empty(n, object), np.full(n, "", object)
    medians = np.full(n, np.nan)
    seen = np.zeros(n, bool)
    for number, row in enumerate(rows, 2):
        try:
            token = int(row[1])
            if not 0 <= token < n or seen[token]:
                raise ValueError(f"token {token} is out of range or given twice")
            seen[token], ids[token] = True, row[0]
            if len(row) > 2 and row[2]:
                medians[token] = float(row[2])
                if not medians[token] > 0:
                    raise ValueError(f"the median {row[2]} is not positive")
            if len(row) > 3:
                symbols[token] = row[3]
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{where}, line {number}: {error}",
                hint="a vocabulary is a TSV with the columns token (the id), id (the number), "
                "median and symbol",
            ) from None
    names: dict[str, int] = {}
    for token, symbol in enumerate(symbols):
        key = symbol.upper()
        if key:
            names[key] = -1 if key in names else token  # a symbol of two ids is ambiguous
    names = {key: token for key, token in names.items() if token >= 0}
    return Vocabulary(name, ids.astype(str), symbols.astype(str), medians, names)


def _species(names: list[str]) -> str:
    """Return another species that the names are of, by Ensembl ids, or mouse by 'Gapdh'."""
    sample = names[:: max(len(names) // 1000, 1)]
    hits = [match[1].upper() for name in sample if (match := _OTHER_SPECIES.match(name))]
    known = {"MUS": "mouse", "RNO": "rat", "DAR": "zebrafish", "MMU": "macaque", "SSC": "pig"}
    if hits and len(hits) > len(sample) / 4:
        return known.get(hits[0], "another species")
    cased = [n for n in sample if n[:1].isalpha() and n[1:2].isalpha() and len(n) > 2]
    title = [n for n in cased if n[0].isupper() and n[1:].lower() == n[1:]]
    return "mouse" if len(cased) > 20 and len(title) > 0.6 * len(cased) else ""
