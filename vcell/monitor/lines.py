"""Lines of text with semantic styles, from which screens are made without a terminal.

A line is a list of pieces; a piece is a text and the name of a style (`app` turns names into
colours): ``dim``, ``bold``, ``good``, ``warn``, ``bad``, ``key``, ``title``, ``cursor``, ``c0`` to
``c6`` for curves and ``b0`` to ``b6`` for their bands.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from vcell.monitor import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FEWEST = 12  # columns in which a cut text still says something
Piece = tuple[str, str]
Line = list[Piece]


def text(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(piece for piece, _ in line)


def width(line: Line) -> int:
    """Return the width of a line in columns."""
    return sum(words.cells(piece) for piece, _ in line)


def fit(line: Line, columns: int, style: str | None = None) -> Line:
    """Cut or pad a line to `columns`; with a `style`, the whole line gets it."""
    fitted: Line = []
    room = columns
    for piece, its in line:
        seen = piece if piece.isprintable() else words.clean(piece)
        short = words.cut(seen, room, "")
        fitted.append((short, its if style is None else style))
        room -= words.cells(short)
        if room <= 0:
            break
    if room > 0:
        fitted.append((" " * room, style or ""))
    return fitted


def shortened(line: Line, columns: int) -> Line:
    """Cut a line that is wider than `columns`, so that it is seen to go on."""
    if width(line) <= columns:
        return line
    return [*fit(line, columns - 1), ("…", "dim")]


def side_by_side(left: Sequence[Line], right: Sequence[Line], left_width: int) -> list[Line]:
    """Put two blocks next to each other."""
    rows = max(len(left), len(right))
    return [
        [
            *fit(left[i] if i < len(left) else [], left_width),
            ("  ", ""),
            *(right[i] if i < len(right) else []),
        ]
        for i in range(rows)
    ]


def spread(left: Line, right: Line, columns: int) -> Line:
    """Put one piece of text at the left edge and one at the right, which gives way."""
    while left and not left[-1][0].rstrip():
        left = left[:-1]
    if left:
        left = [*left[:-1], (left[-1][0].rstrip(), left[-1][1])]
    left = shortened(left, columns)
    room = columns - width(left) - 1
    right = shortened(right, room) if room >= _FEWEST else []
    return [*fit(left, columns - width(right) - 1), (" ", ""), *right] if right else left


def wrap(sentence: str, columns: int) -> list[str]:
    """Break a sentence into lines at its spaces."""
    return textwrap.wrap(sentence, columns, subsequent_indent="  ") or [""]


def rule(title: Line, columns: int, mark: str = "─") -> Line:
    """Return a title drawn into a horizontal rule."""
    if not title:
        return [(mark * columns, "dim")]
    head: Line = [(mark * 2 + " ", "dim"), *title, (" ", "")]
    return [*shortened(head, columns), (mark * max(0, columns - width(head)), "dim")]


def stretch(block: list[Line], rows: int) -> list[Line]:
    """Cut or pad a block to a number of rows."""
    return [*block[:rows], *([] for _ in range(rows - len(block)))]


def keys(hints: Iterable[tuple[str, str]], columns: int) -> Line:
    """Return as many hints (key, action) as fit."""
    line: Line = [(" ", "")]
    for key, what in hints:
        piece: Line = [(key, "key"), (f" {what}  ", "dim")]
        if width(line) + width(piece) - 2 > columns:
            break
        line += piece
    return line


def bar(share: float, columns: int, *, plain: bool = False) -> str:
    """Return a bar filled to a share of its columns."""
    full = round(min(1.0, max(0.0, share)) * columns)
    return ("#" * full + "." * (columns - full)) if plain else "█" * full + "░" * (columns - full)
