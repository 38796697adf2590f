"""What a source of gene features is, and how it is read: sets, a network, a table, effects."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.genes.sets import read_sets
from vcell.screen import tables
from vcell_features.embed import of_edges, of_sets

if TYPE_CHECKING:
    from pathlib import Path

    from vcell_features import Features

_SETS, _NETWORK, _TABLE, _EFFECTS = "sets", "network", "table", "effects"
_PEEK = 50  # lines that tell what a text file is
# the two ends of an edge as STRING, BioGRID, HuRI and others call them, in lower case
_ENDS = (
    ("protein1", "protein2"),
    ("official symbol interactor a", "official symbol interactor b"),
    ("source", "target"),
    ("from", "to"),
    ("gene1", "gene2"),
    ("gene_a", "gene_b"),
    ("regulator", "target"),
)


@dataclass(frozen=True)
class Made:
    """A table that was made: its genes, (G, F) features, and in words what it was made of."""

    genes: list[str]
    values: NDArray[np.float32]
    what: str


def made(path: Path, config: Features) -> Made:
    """Read a source and make a table of it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    kind = _kind(path) if config.kind == "auto" else config.kind
    if kind == _SETS:
        sets = {name: found.genes for name, found in read_sets(_plain(path)).items()}
        genes, values = of_sets(sets, config.rank)
        return Made(genes, values, f"{len(sets):,} gene sets")
    if kind == _NETWORK:
        edges = _edges(path, config)
        genes, values = of_edges(edges, config.rank, config.method)
        return Made(genes, values, f"a network of {len(edges[0]):,} edges, by {config.method}")
    if kind == _EFFECTS:
        from vcell.screen.prior_effects import PriorEffects

        genes, values = PriorEffects.read(path).components(config.rank)
        return Made(genes, values, f"the effects of {len(genes):,} perturbations")
    genes, table = tables.read(path)
    return Made(genes, table.astype(np.float32), f"a table of {table.shape[1]} columns")


def _kind(path: Path) -> str:
    """Tell what a file is by its name and its first lines."""
    bare = path.with_suffix("") if path.suffix == ".gz" else path
    if bare.suffix == ".gmt":
        return _SETS
    if bare.suffix in (".npz", ".h5ad"):
        return _TABLE
    if bare.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            columns = set(pq.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no Parquet file: {error}") from None
        return _EFFECTS if {"perturbation", "effect", "standard_error"} <= columns else _TABLE
    head, rows = _lines(path, _PEEK)
    if _ends(head) is not None:
        return _NETWORK
    first = rows[0] if rows and len(rows[0]) == len(head) else head
    words = sum(not _number(cell) for cell in first)
    if words >= 2 or (len(first) == 2 and words == 2):
        return _NETWORK
    if words == 1 and len(first) > 1:
        return _TABLE
    raise UserError(
        f"{path} is neither sets, a network nor a table of genes: its first line is "
        f"{' '.join(head)[:60]!r}",
        hint="--kind sets, network, table or effects says what it is",
    )


def _edges(path: Path, config: Features) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return the ends of edges and their weights; 1 where the file has none."""
    head, rows = _lines(path, None)
    lower = [cell.casefold().lstrip("#").strip() for cell in head]
    named = _ends(head)
    headed = named is not None or (len(head) > 2 and not any(map(_number, head)) and bool(rows)
                                   and any(map(_number, rows[0])))  # fmt: skip
    if not headed:
        rows = [head, *rows]
    a, b = named or (0, 1)
    weight = _weights(path, config.weight, lower if headed else [], rows, (a, b))
    names = _names(config.ids) if config.ids else {}
    one, other, heavy = [], [], []
    for number, row in enumerate(rows, start=2 if headed else 1):
        if len(row) <= max(a, b):
            raise UserError(f"{path}:{number}: an edge has two ends, this line has {len(row)}")
        value = 1.0 if weight is None else _value(path, number, row, weight)
        if value < config.minimum:
            continue
        one.append(names.get(row[a], row[a]))
        other.append(names.get(row[b], row[b]))
        heavy.append(value)
    if len(set(one) | set(other)) < 3:
        raise UserError(
            f"{path}: {len(one)} edges are left, too few for features",
            hint="lower --minimum" if config.minimum else "is it a list of edges?",
        )
    return one, other, np.array(heavy, np.float64)


def _weights(
    path: Path, wanted: str | None, head: list[str], rows: list[list[str]], ends: tuple[int, int]
) -> int | None:
    """Return the column of weights, or None."""
    if wanted is not None:
        if wanted.casefold() not in head:
            raise UserError(f"{path} has no column {wanted!r}", hint=f"it has {', '.join(head)}")
        return head.index(wanted.casefold())
    if "combined_score" in head:
        return head.index("combined_score")
    if head and len(head) > 4:
        return (
            None  # BioGRID and others have ids and numbers of articles, none of which is a weight
        )
    rest = [i for i in range(len(rows[0]) if rows else 0) if i not in ends]
    return next((i for i in rest if _number(rows[0][i])), None)


def _value(path: Path, number: int, row: list[str], column: int) -> float:
    if column < len(row) and _number(row[column]):
        return float(row[column])
    text = row[column] if column < len(row) else ""
    raise UserError(f"{path}:{number}: the weight is {text!r}, not a number")


def _names(path: Path) -> dict[str, str]:
    head, rows = _lines(path, None)
    return {row[0]: row[1] for row in [head, *rows] if len(row) > 1}


def _ends(head: list[str]) -> tuple[int, int] | None:
    lower = [cell.casefold().lstrip("#").strip() for cell in head]
    for a, b in _ENDS:
        if a in lower and b in lower:
            return lower.index(a), lower.index(b)
    return None


def _lines(path: Path, most: int | None) -> tuple[list[str], list[list[str]]]:
    """Return the cells of the first line and of the others, tabs before commas before spaces."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig")
        ) as file:
            lines = [line for line in islice(file, most) if line.strip()]
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise UserError(f"{path} is not text, nor gzipped text") from None
    if not lines:
        raise UserError(f"{path} is empty")
    for mark in ("\t", ","):
        if mark in lines[0]:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
            break
    else:
        rows = [line.split() for line in lines]
    return rows[0], rows[1:]


def _plain(path: Path) -> Path:
    if path.suffix == ".gz":
        raise UserError(f"{path} is compressed", hint=f"gunzip {path}")
    return path


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
