"""Read edge lists: text or gzip, in the layouts that databases and tools write.

One file may hold several relations (STRING's channels, physical and genetic interactions).
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.graph.layout import EdgeLayout, cells, layout_of, reader
from vcell.text_files import text_of

_PEEK = 200  # lines from which the layout is detected
_TAXON = re.compile(r"^(\d+)\.(?=\D)")  # STRING writes 9606.ENSP..., 4932.YAL001C


@dataclass(frozen=True)
class EdgeList:
    """Edges of one relation, by the names in the file.

    Attributes
    ----------
    relation
        Name of the file, of a channel, or of a kind of interaction.
    names
        The genes, each once, in order of first occurrence.
    source, target
        (E,) indices into `names`.
    weight
        (E,), or None if the file has none.
    directed
        Whether edges have a direction, from source to target.
    what
        Description of the file's format.
    left_out
        Descriptions of what was left out.
    """

    relation: str
    names: list[str]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    directed: bool = False
    what: str = "pairs of genes"
    left_out: tuple[str, ...] = ()


@dataclass
class _Columns:
    """Columns that grow while a file is read."""

    code: dict[str, int] = field(default_factory=dict)
    source: array[int] = field(default_factory=lambda: array("i"))
    target: array[int] = field(default_factory=lambda: array("i"))
    weights: list[array[float]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    kind: array[int] = field(default_factory=lambda: array("h"))
    taxa: Counter[str] = field(default_factory=Counter)
    taxon: array[int] = field(default_factory=lambda: array("i"))  # -1: of two species


def read_edges(
    path: Path,
    *,
    ids: Path | None = None,
    weight: str | None = None,
    minimum: float | None = None,
    known: Callable[[str], bool] | None = None,
    split: bool = True,
) -> list[EdgeList]:
    """Read the relations of an edge list.

    Parameters
    ----------
    ids
        A table of ids and names in its first two columns (STRING's protein.info).
    weight
        The column of weights; by default the format's own.
    minimum
        Leave out edges of lower weight.
    known
        Whether a name is of a requested gene: of symbols and systematic names, the columns with
        more of these are used.
    split
        Make one relation per STRING channel or kind of interaction; otherwise one per file.

    Raises
    ------
    UserError
        If the file is not text, its header is contradictory, or a line is not an edge.
    """
    with text_of(path) as file:
        head = [line for _, line in zip(range(_PEEK), file, strict=False)]
        if not any(line.strip() for line in head):
            raise UserError(f"{path} is empty")
        layout = layout_of(path, head, weight, split=split)
        ends = _ends(layout, head, known)
    found = _Columns(weights=[array("f") for _ in layout.weights])
    with text_of(path) as file:
        _fill(found, path, layout, ends, file)
    if not found.source:
        raise UserError(f"{path} holds no edges, only a header")
    names = _names(path, list(found.code), ids)
    return _relations(path, layout, found, names, minimum)


def _rows(file: IO[str], layout: EdgeLayout) -> Iterable[list[str]]:
    for _ in range(layout.skip):
        next(file, None)
    if layout.mark is None:
        return (line.split() for line in file)
    return reader(file, layout.mark)


def _ends(
    layout: EdgeLayout, head: list[str], known: Callable[[str], bool] | None
) -> tuple[int, int]:
    """Choose among symbols and systematic names by how many of the first lines are known."""
    if len(layout.ends) == 1 or known is None:
        return layout.ends[0]
    rows = cells(head[layout.skip :], layout.mark)
    hits = [
        sum(len(row) > max(p) and known(row[p[0]]) + known(row[p[1]]) for row in rows)
        for p in layout.ends
    ]
    return layout.ends[int(np.argmax(hits))]


def _fill(
    found: _Columns, path: Path, layout: EdgeLayout, ends: tuple[int, int], file: IO[str]
) -> None:
    a, b = ends
    code, source, target = found.code, found.source, found.target
    columns = [(column, found.weights[i]) for i, (_, column) in enumerate(layout.weights)]
    most = max([a, b, layout.kind or 0, *(column for column, _ in columns)])
    for number, row in enumerate(_rows(file, layout), layout.skip + 1):
        if len(row) <= most:
            if not any(cell.strip() for cell in row):
                continue
            raise UserError(
                f"{path}:{number}: an edge has two ends"
                + (" and a weight" if columns else "")
                + f", this line has {len(row)} of {most + 1} columns"
            )
        one, other = row[a].strip(), row[b].strip()
        if not one or not other:
            raise UserError(f"{path}:{number}: an end of this edge has no name")
        source.append(code.setdefault(one, len(code)))
        target.append(code.setdefault(other, len(code)))
        for column, values in columns:
            values.append(_number(path, number, row[column]))
        if layout.kind is not None:
            found.kind.append(found.kinds.setdefault(row[layout.kind], len(found.kinds)))
        if layout.organisms is not None:
            first, second = (row[i] for i in layout.organisms)
            found.taxa[first] += 1
            found.taxon.append(int(first) if first == second and first.isdigit() else -1)


def _number(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:  # nan or infinite
        raise UserError(f"{path}:{number}: the weight is {text.strip()!r}, not a number")
    return value


def _names(path: Path, names: list[str], ids: Path | None) -> list[str]:
    """Replace ids by names, and remove the species number from STRING's ids."""
    if ids is not None:
        with text_of(ids) as file:
            lines = [line.rstrip("\r\n") for line in file]
            mark = "\t" if lines and "\t" in lines[0] else ","
            table = {row[0].lstrip("#"): row[1] for row in cells(lines, mark) if len(row) > 1}
        if not any(name in table for name in names):
            raise UserError(f"{ids} has none of the ids of {path}, such as {names[0]}")
        names = [table.get(name, name) for name in names]
    taxa = Counter(hit[1] if (hit := _TAXON.match(name)) else "" for name in names)
    taxa.pop("", None)
    if len(taxa) > 1:
        raise UserError(
            f"{path} holds genes of {len(taxa)} species: {', '.join(sorted(taxa)[:4])}",
            hint="take the file of one species",
        )
    return [_TAXON.sub("", name) for name in names]


def _relations(
    path: Path,
    layout: EdgeLayout,
    found: _Columns,
    names: list[str],
    minimum: float | None,
) -> list[EdgeList]:
    source = np.frombuffer(found.source, np.int32)
    target = np.frombuffer(found.target, np.int32)
    weights = [np.frombuffer(values, np.float32) for values in found.weights]
    notes, kept = _of_one_species(found)
    stem = stem_of(path)

    def one(
        name: str, mask: NDArray[np.bool_] | None, weight: NDArray[np.float32] | None
    ) -> EdgeList:
        messages = list(notes)
        if minimum is not None and weight is not None:
            light = weight < minimum
            messages.append(
                f"{console.count(int(light.sum()), 'edge')} of weight below {minimum:g}"
            )
            mask = ~light if mask is None else mask & ~light
        s, t, w = (
            (source, target, weight)
            if mask is None
            else (source[mask], target[mask], None if weight is None else weight[mask])
        )
        return EdgeList(name, names, s, t, w, layout.directed, layout.what, tuple(messages))

    if layout.kind is not None:
        codes = np.frombuffer(found.kind, np.int16)
        kinds = sorted(found.kinds)
        return [
            one(
                f"{stem}:{kind.removesuffix(' interactions').strip() or 'other'}",
                (codes == found.kinds[kind]) & (True if kept is None else kept),
                weights[0] if weights else None,
            )
            for kind in kinds
        ]
    if len(weights) > 1:
        return [
            one(f"{stem}:{name}", values > 0, values)
            for (name, _), values in zip(layout.weights, weights, strict=True)
            if (values > 0).any()
        ]
    return [one(stem, kept, weights[0] if weights else None)]


def _of_one_species(found: _Columns) -> tuple[list[str], Any]:
    """Keep the edges within the species with the most edges."""
    if not found.taxa:
        return [], None
    taxon = np.frombuffer(found.taxon, np.int32)
    species = found.taxa.most_common(1)[0][0]
    if not species.isdigit():
        return [], None
    kept = taxon == int(species)
    others = int(len(kept) - kept.sum())
    note = f"{console.count(others, 'edge')} of other species than {species}"
    return ([note] if others else []), (kept if others else None)


def stem_of(path: Path) -> str:
    """Return a file's name without its endings."""
    name = path.name.removesuffix(".gz")
    for ending in (".tsv", ".csv", ".txt", ".tab", ".tab2", ".tab3", ".mitab"):
        name = name.removesuffix(ending)
    return name
