"""Tables of text: as wide as they need, or fitted to a terminal by wrapping words or stacking rows.

Standard library only.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

_GAP = 2
_NARROWEST = 12  # columns: words are not wrapped below this width; rows are stacked instead
_TALLEST = 4  # lines of a row; rows are stacked if one needs more


def lay_out(body: list[list[str]], columns: list[str], room: int | None) -> str:
    """Lay out rows under column headings within `room` columns (None: no limit)."""
    if not columns:
        return ""
    numeric = [bool(body) and all(is_number(row[i]) for row in body) for i in range(len(columns))]
    lines = [columns, *body]
    widths = [max(map(shown, (line[i] for line in lines))) for i in range(len(columns))]
    if room is not None and _total(widths) > room:
        squeezed = _squeezed(widths, numeric, room)
        if squeezed is None or _too_tall(body, squeezed):
            return _stacked(body, columns, room)
        widths = squeezed
    rule = (" " * _GAP).join("\u2500" * width for width in widths)
    rows = [_row(line, widths, numeric) for line in body]
    return "\n".join([_row(columns, widths, numeric), rule, *rows])


def fitted(text: str, room: int | None) -> str:
    """Wrap lines that are wider than `room`; continuation lines are indented to the text."""
    if room is None:
        return text
    return "\n".join(
        line if shown(line) <= room else _hanging(line, room) for line in text.split("\n")
    )


def _hanging(line: str, room: int) -> str:
    lead = re.match(r"\s*(?:\S+(?: \S+)*\s{2,})?", line)  # an indent, and a name before two blanks
    width = len(lead.group()) if lead else 0
    indent = " " * (width if width < room // 2 else 2)
    start = line[:width] if width < room // 2 else ""
    words = line[len(start) :].strip()
    return textwrap.fill(
        words, room, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
    )


def shown(text: str) -> int:
    """Return the width of a text in columns of a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def is_number(text: str) -> bool:
    """Whether a cell is a number, or the mark of a missing one."""
    if text in ("\u2013", ""):
        return text != ""
    plain = text.replace(",", "").removesuffix("%").replace("e-", "").replace("e+", "")
    return plain.removeprefix("-").replace(".", "", 1).isdigit()


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _squeezed(widths: list[int], numeric: list[bool], room: int) -> list[int] | None:
    """Shrink the widest columns of words until the table fits; None if that is not enough."""
    widths = list(widths)
    least = [w if n else min(w, _NARROWEST) for w, n in zip(widths, numeric, strict=True)]
    if _total(least) > room:
        return None
    while _total(widths) > room:
        able = [i for i, width in enumerate(widths) if width > least[i]]
        widest = max(able, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _too_tall(body: list[list[str]], widths: list[int]) -> bool:
    return any(
        len(_wrapped(cell, width)) > _TALLEST
        for row in body
        for cell, width in zip(row, widths, strict=True)
    )


def _row(cells: Sequence[str], widths: list[int], numeric: list[bool]) -> str:
    parts = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for k in range(max(map(len, parts))):
        line = [
            _padded(part[k] if k < len(part) else "", width, right=right)
            for part, width, right in zip(parts, widths, numeric, strict=True)
        ]
        lines.append((" " * _GAP).join(line).rstrip())
    return "\n".join(lines)


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * max(width - shown(text), 0)
    return space + text if right else text + space


def _wrapped(text: str, width: int) -> list[str]:
    if shown(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=True) or [""]


def _stacked(body: list[list[str]], columns: list[str], room: int) -> str:
    """Write each row as a block: the name of a column, and its value."""
    head = min(max(map(shown, columns)), max(room // 3, 1))
    blocks = []
    for row in body:
        lines = []
        for name, cell in zip(columns, row, strict=True):
            names = _wrapped(name, head)
            values = _wrapped(cell, max(room - head - _GAP, 1))
            lines += [
                f"{_padded(left, head, right=False)}{' ' * _GAP}{right}".rstrip()
                for left, right in zip_longest(names, values, fillvalue="")
            ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
