"""Cells of a file as ranked tokens.

``with open_cells(path) as source: cells = encode(source, shipped("V2"), longest=4096)``

Chunks are read and encoded in advance on threads. Two faults of upstream are fixed: two columns of
one gene are one token, and stored zeros are not genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect
from vcell.data.prefetch import prefetched
from vcell.errors import UserError
from vcell.kernels.rank_values import rank_values

if TYPE_CHECKING:
    from vcell.data import Block, CellSource
    from vcell.geneformer.vocabulary import Mapping, Vocabulary

FEW = 0.05  # warn if a smaller share of the columns has a token
#: obs column by which upstream filters cells.
FILTER = "filter_pass"


@dataclass(frozen=True)
class TokenCells:
    """Ranked cells, concatenated.

    Attributes
    ----------
    rows
        ``[C]`` row of each cell in its file.
    indptr, tokens
        Cell c is ``tokens[indptr[c]:indptr[c + 1]]``, special tokens included.
    n_genes
        ``[C]`` genes with a token, before truncation to the maximum length.
    n_ties
        ``[C]`` number of them with the same value as the gene before.
    """

    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    tokens: NDArray[np.int32]
    n_genes: NDArray[np.int64]
    n_ties: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, cell: int) -> NDArray[np.int32]:
        """Return the tokens of one cell."""
        return self.tokens[self.indptr[cell] : self.indptr[cell + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[C]`` number of tokens of each cell."""
        return np.diff(self.indptr)

    def take(self, cells: NDArray[np.int64]) -> TokenCells:
        """Return some cells, in the order given."""
        parts = [self[int(cell)] for cell in cells]
        return TokenCells(
            self.rows[cells],
            np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
            np.concatenate([np.zeros(0, np.int32), *parts]),
            self.n_genes[cells],
            self.n_ties[cells],
        )

    @classmethod
    def joined(cls, parts: list[TokenCells]) -> TokenCells:
        """Concatenate blocks of cells."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([np.zeros(0, np.int32), *(part.tokens for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.n_genes for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.n_ties for part in parts)]),
        )


def gene_names(source: CellSource, column: str | None = None) -> NDArray[np.str_]:
    """Return the names to find tokens by: a column of var, or the names of the genes.

    By default: ``ensembl_id``, which upstream reads, else a column of Ensembl ids, else the names.
    """
    if column is None:
        column = "ensembl_id" if "ensembl_id" in source.var_columns else _ensembl_column(source)
    if column is None:
        return source.genes
    console.say(f"{source.name}: genes by var column {column!r}")
    return np.array(["" if v is None else str(v) for v in source.var(column).values], dtype=np.str_)


def _ensembl_column(source: CellSource) -> str | None:
    """Return a column of Ensembl ids, unless the names of the genes are such ids."""
    if _are_ids(source.genes[:50].tolist()):
        return None
    for column in source.var_columns:
        if _are_ids([str(value) for value in source.var(column).values[:50]]):
            return column
    return None


def _are_ids(names: list[str]) -> bool:
    return sum(name.upper().startswith("ENS") for name in names) > len(names) / 2


def mapped(source: CellSource, vocabulary: Vocabulary, column: str | None = None) -> Mapping:
    """Find the token of every column of a file, report how, and raise if it cannot be encoded."""
    mapping = vocabulary.map(gene_names(source, column))
    if mapping.species:
        raise UserError(
            f"{source.name}: the genes look like {mapping.species}; Geneformer knows human genes",
            hint="translate them to human orthologues first",
        )
    if mapping.n_found == 0:
        first = ", ".join(str(name) for name in gene_names(source, column)[:3])
        raise UserError(
            f"{source.name}: none of its {source.n_genes:,} genes ({first}, ...) has a token in "
            f"the vocabulary {vocabulary.name}",
            hint="name the var column with Ensembl ids or symbols with --gene-column",
        )
    console.say(f"{source.name}: {mapping.text} in {vocabulary.name}")
    if mapping.n_found < FEW * len(mapping.token_of):
        console.warn(
            f"{source.name}: hardly any column has a token: are these gene names? "
            "--gene-column names the var column that has them"
        )
    return mapping


def encode_chunks(
    source: CellSource,
    vocabulary: Vocabulary,
    longest: int,
    *,
    rows: NDArray[np.int64] | None = None,
    column: str | None = None,
) -> Iterator[TokenCells]:
    """Encode cells block by block; the next blocks are encoded while one is processed.

    Raises
    ------
    UserError
        If the values are not counts, or no gene is in the vocabulary.
    """
    detect.require_counts(source)
    mapping = mapped(source, vocabulary, column)

    def blocks() -> Iterator[TokenCells]:
        for block in source.chunks(rows):
            yield encode_block(block, mapping.token_of, vocabulary, longest)

    return prefetched(blocks())


def encode_block(
    block: Block, token_of: NDArray[np.int32], vocabulary: Vocabulary, longest: int
) -> TokenCells:
    """Encode the cells of one block."""
    keep = longest - vocabulary.n_special
    bound = np.minimum(np.diff(block.indptr), keep).sum()
    out = np.empty(int(bound), np.int32)
    lengths, found, ties = rank_values(
        block.indptr, block.indices, block.data, token_of, vocabulary.medians, keep, out
    )
    tokens = out[: int(lengths.sum())]
    if vocabulary.cls is not None and vocabulary.eos is not None:
        tokens, lengths = _framed(tokens, lengths, vocabulary.cls, vocabulary.eos)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenCells(np.asarray(block.rows), indptr, tokens, found, ties)


def _framed(
    tokens: NDArray[np.int32], lengths: NDArray[np.int64], cls: int, eos: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Add <cls> before and <eos> after every cell."""
    n = len(lengths)
    framed = np.empty(len(tokens) + 2 * n, np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths + 2)])
    inner = np.ones(len(framed), bool)
    inner[starts[:-1]] = inner[starts[1:] - 1] = False
    framed[inner] = tokens
    framed[starts[:-1]], framed[starts[1:] - 1] = cls, eos
    return framed, lengths + 2


def encode(
    source: CellSource,
    vocabulary: Vocabulary,
    longest: int,
    *,
    rows: NDArray[np.int64] | None = None,
    column: str | None = None,
) -> TokenCells:
    """Encode all cells, except those without any gene of the vocabulary, and report the numbers."""
    rows = passing(source, rows)
    n = source.n_cells if rows is None else len(rows)
    parts = []
    with console.progress("ranking genes", n) as bar:
        for part in encode_chunks(source, vocabulary, longest, rows=rows, column=column):
            parts.append(part)
            bar.advance(len(part))
    return without_empty(TokenCells.joined(parts), source.name)


def passing(source: CellSource, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Leave out cells marked in the column filter_pass, as upstream does."""
    if FILTER not in source.obs_columns:
        return rows
    passes = np.asarray(source.obs(FILTER).values).astype(str)
    good = np.isin(passes, ["1", "1.0", "True", "true"])
    chosen = np.flatnonzero(good) if rows is None else rows[good[rows]]
    console.say(f"{source.name}: {FILTER} keeps {console.count(len(chosen), 'cell')}")
    return chosen


def without_empty(cells: TokenCells, name: str) -> TokenCells:
    """Leave out cells without any gene of the vocabulary; raise if none is left."""
    counts = Counts()
    with_counts = counts.with_genes(cells)
    counts.report(name)
    return with_counts


@dataclass
class Counts:
    """Counts of cells and genes, reported after ranking.

    Attributes
    ----------
    cells, empty
        Numbers of cells, and of cells without any gene of the vocabulary.
    genes, ties
        Numbers of ranked genes, and of genes with the same value as the gene before.
    """

    cells: int = 0
    empty: int = 0
    genes: int = 0
    ties: int = 0

    def with_genes(self, part: TokenCells) -> TokenCells:
        """Count some cells, and return those that have a gene."""
        empty = part.n_genes == 0
        self.cells += len(part)
        self.empty += int(empty.sum())
        self.genes += int(part.n_genes.sum())
        self.ties += int(part.n_ties.sum())
        return part.take(np.flatnonzero(~empty)) if empty.any() else part

    def report(self, name: str) -> None:
        """Report cells left out and ties; raise if no cell is left."""
        if self.empty == self.cells:
            raise UserError(f"{name}: no cell has a count of any gene of the vocabulary")
        if self.empty:
            cells = "1 cell" if self.empty == 1 else f"{self.empty:,} cells"
            console.warn(f"{name}: {cells} without any known gene left out")
        if self.ties:
            console.say(
                f"{name}: {console.count(self.ties, 'gene')} "
                f"({self.ties / max(self.genes, 1):.1%}) with the rank value of another of the "
                "same cell: ordered by token"
            )
