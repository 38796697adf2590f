"""The layout of an edge list: separators, header, ends, weights, kinds of edges.

Everything is detected from the first lines and reported; contradictory files are errors.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: Header names of the two ends of an edge, in lower case, and whether the edge has a direction.
ENDS = (
    ("protein1", "protein2", False),
    ("regulator", "target", True),
    ("tf", "target", True),
    ("source", "target", True),
    ("from", "to", True),
    ("gene1", "gene2", False),
    ("gene_1", "gene_2", False),
    ("gene_a", "gene_b", False),
    ("node1", "node2", False),
)
_BIOGRID = (
    ("official symbol interactor a", "official symbol interactor b"),
    ("systematic name interactor a", "systematic name interactor b"),
)
_OLD_BIOGRID = (("official_symbol_a", "official_symbol_b"), ("interactor_a", "interactor_b"))
_KINDS = ("experimental system type",)
_ORGANISMS = (
    ("organism id interactor a", "organism id interactor b"),
    ("organism interactor a", "organism interactor b"),
    ("organism_a_id", "organism_b_id"),
)
#: Channels of STRING's protein.links.detailed and .full.
_CHANNELS = (
    "neighborhood", "fusion", "cooccurence", "coexpression", "experimental", "database",
    "textmining",
)  # fmt: skip
_SGD_KINDS = {"physical interactions", "genetic interactions"}


@dataclass(frozen=True)
class EdgeLayout:
    """The columns of an edge list.

    Attributes
    ----------
    what
        Description of the format, for messages.
    mark
        Separator of columns; None for blanks.
    skip
        Number of lines before the first edge.
    ends
        Pairs of columns that name the two ends; of several, the pair with more known genes is used.
    weights
        ``(relation, column)``: for a single column the relation is named after the file (``""``).
    kind, organisms
        The column of the kind of an edge, and the columns of the species of its ends.
    directed
        Whether edges have a direction, from the first end to the second.
    """

    what: str
    mark: str | None
    skip: int
    ends: tuple[tuple[int, int], ...]
    weights: tuple[tuple[str, int], ...] = ()
    kind: int | None = None
    organisms: tuple[int, int] | None = None
    directed: bool = False


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def lower(head: list[str]) -> list[str]:
    """Return header names in lower case, without the # of a commented header."""
    return [cell.casefold().lstrip("#").strip() for cell in head]


def named_ends(head: list[str]) -> tuple[int, int] | None:
    """Return the columns of the two ends if a header names them, else None."""
    names = lower(head)
    for one, other in (*((a, b) for a, b, _ in ENDS), *_BIOGRID, *_OLD_BIOGRID):
        if one in names and other in names:
            return names.index(one), names.index(other)
    return None


def layout_of(
    path: Path, lines: list[str], weight: str | None = None, *, split: bool = True
) -> EdgeLayout:
    """Detect the layout of a file from its first lines.

    Parameters
    ----------
    weight
        The column of weights, if the user names one.
    split
        Make one relation per channel or kind of interaction; otherwise one.
    """
    lines, skip = _after_prose(lines)
    mark = next((m for m in ("\t", ",") if m in (lines[0] if lines else "")), None)
    rows = cells(lines[:50], mark)
    if not rows:
        raise UserError(f"{path} holds no edges")
    head = rows[0]
    named = named_ends(head)
    headed = named is not None or (
        len(head) > 2
        and not any(map(is_number, head))
        and len(rows) > 1
        and any(map(is_number, rows[1]))
    )
    if not headed:
        return _headless(path, rows, mark, skip, weight)
    if len(rows) > 1 and len(rows[1]) != len(head):
        raise UserError(
            f"{path}: its header has {console.count(len(head), 'column')}, the line below has "
            f"{len(rows[1])}",
            hint="a header needs a name for every column",
        )
    found = _headed(path, rows, mark, skip + 1, weight, split=split)
    return found if split else replace(found, kind=None)


def cells(lines: list[str], mark: str | None) -> list[list[str]]:
    """Split lines into cells."""
    if mark is None:
        return [line.split() for line in lines]
    return [[cell.strip() for cell in row] for row in reader(lines, mark)]


def reader(lines: Iterable[str], mark: str) -> Iterable[list[str]]:
    """Split lines at a separator; in tab-separated tables, quotation marks are part of a name."""
    if mark == "\t":
        return csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=mark)


def _after_prose(lines: list[str]) -> tuple[list[str], int]:
    """Skip comments, and the licence at the start of BioGRID's oldest tables."""
    for i, line in enumerate(lines):
        if line.startswith("INTERACTOR_A\t"):
            return lines[i:], i
    start = 0
    while start < len(lines) and (lines[start].startswith(("#", "!")) or not lines[start].strip()):
        start += 1
    if 0 < start < len(lines):  # the last comment is the header if it names as many columns
        last = lines[start - 1]
        for mark in ("\t", ","):
            if mark in last and last.count(mark) == lines[start].count(mark):
                return lines[start - 1 :], start - 1
    return lines[start:], start


def _headless(
    path: Path, rows: list[list[str]], mark: str | None, skip: int, weight: str | None
) -> EdgeLayout:
    if weight is not None:
        raise UserError(f"{path} has no header, so no column {weight!r}")
    first = rows[0]
    if len(first) < 2:
        raise UserError(
            f"{path}: an edge has two ends, its first line has {len(first)}: {first[0][:60]!r}",
            hint="an edge list has two columns of genes, and perhaps one of weights",
        )
    if len(first) == 12 and first[5] in _SGD_KINDS:
        return EdgeLayout("SGD interactions", mark, skip, ((0, 2), (1, 3)), kind=5)
    numbers = [i for i in range(2, len(first)) if is_number(first[i])]
    if len(first) > 4:
        numbers = []  # ids and numbers of articles are not weights
    what = "pairs of genes" + (" with weights" if numbers else "") + ", without a header"
    return EdgeLayout(what, mark, skip, ((0, 1),), tuple(("", i) for i in numbers[:1]))


def _headed(
    path: Path,
    rows: list[list[str]],
    mark: str | None,
    skip: int,
    weight: str | None,
    *,
    split: bool,
) -> EdgeLayout:
    head = rows[0]
    names = lower(head)
    pairs = [(a, b, d) for a, b, d in ENDS if a in names and b in names]
    if sum(b == "target" for _, b, _ in pairs) > 1:  # with a regulator, "source" is a database
        pairs = [(a, b, d) for a, b, d in pairs if a != "source"]
    biogrid = [(a, b) for a, b in (*_BIOGRID, *_OLD_BIOGRID) if a in names and b in names]
    twice = [name for name, n in Counter(names).items() if n > 1 and name]
    used = {cell for a, b, _ in pairs for cell in (a, b)} | {cell for p in biogrid for cell in p}
    if set(twice) & (used or set(names)):
        raise UserError(
            f"{path}: its header names {sorted(set(twice) & (used or set(names)))[0]!r} twice",
            hint="every column needs a name of its own",
        )
    if len(pairs) > 1:
        both = " and ".join(f"{a}, {b}" for a, b, _ in pairs[:2])
        raise UserError(
            f"{path}: its header names two pairs of ends: {both}",
            hint="keep the two columns that hold the genes, and the weight",
        )
    if biogrid and not pairs:
        organisms = next((p for p in _ORGANISMS if p[0] in names and p[1] in names), None)
        kind = next((names.index(k) for k in _KINDS if k in names), None)
        return EdgeLayout(
            "BioGRID",
            mark,
            skip,
            tuple((names.index(a), names.index(b)) for a, b in biogrid),
            _weight(path, rows, names, weight, (0, 0)) if weight else (),
            kind,
            (names.index(organisms[0]), names.index(organisms[1])) if organisms else None,
        )
    one, other, directed = (
        (names.index(pairs[0][0]), names.index(pairs[0][1]), pairs[0][2])
        if pairs
        else (0, 1, False)
    )
    if not pairs and len(rows) > 1 and is_number(rows[1][1]) and not is_number(rows[1][0]):
        raise UserError(
            f"{path} is a table of numbers for each gene, not an edge list",
            hint="an edge list has two columns of genes, and perhaps one of weights",
        )
    channels = [name for name in names if name in _CHANNELS]
    if pairs and pairs[0][0] == "protein1":
        what = "STRING"
        if split and weight is None and channels and "combined_score" in names:
            weights = tuple((name, names.index(name)) for name in channels)
            return EdgeLayout(f"{what}, {len(channels)} channels", mark, skip, ((one, other),),
                              weights)  # fmt: skip
    elif pairs and pairs[0][0] == "source" and "importance" in names:
        what = "GEARS"
    else:
        what = f"edges of {head[one]} and {head[other]}"
    weights = _weight(path, rows, names, weight, (one, other))
    if weights:
        what += f", weights from {head[weights[0][1]]}"
    return EdgeLayout(what, mark, skip, ((one, other),), weights, directed=directed)  # fmt: skip


def _weight(
    path: Path,
    rows: list[list[str]],
    names: list[str],
    requested: str | None,
    ends: tuple[int, int],
) -> tuple[tuple[str, int], ...]:
    if requested is not None:
        if requested.casefold() not in names:
            raise UserError(
                f"{path} has no column {requested!r}", hint=f"it has {', '.join(names)}"
            )
        return (("", names.index(requested.casefold())),)
    for name in ("combined_score", "importance", "weight", "score"):
        if name in names:
            return (("", names.index(name)),)
    if len(names) > 4:
        return ()  # ids and numbers of articles are not weights
    body: Callable[[int], str] = lambda i: rows[1][i] if len(rows) > 1 else ""  # noqa: E731
    rest = [i for i in range(len(names)) if i not in ends and names[i] and is_number(body(i))]
    return tuple(("", i) for i in rest[:1])
