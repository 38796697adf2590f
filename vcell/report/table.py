"""One table, written as text, Markdown, HTML or CSV. Standard library only."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from typing import Any

from vcell.report import axes
from vcell.report.axes import number
from vcell.report.frame import width_of

_ONE_LINE = 16  # letters: "312 B", "type-0", ".578 to .962"
_SENTENCE = 40  # letters: a longer cell needs a wider column
_FEW, _MANY = 3, 12  # rows
# pixels that a table may have on a telephone, those between two columns, and of a letter in a table
# for one of a figure
_PHONE, _GAP, _SCALE = 358.0, 13.0, 15 / 11
_LONG, _JOINT = re.compile(r"\S{17,}"), re.compile(r"([/_|+=])(?=\w)")
_PIECE = re.compile(r"(?<=[-/_|+=])|\s")
_QUANTITY = re.compile(
    r"(at (least|most) )?[-+−±<>]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?( ± [\d.]+)?( ?[%\w]{1,3})?"
)


@dataclass(frozen=True)
class Table:
    """Columns and rows; a number is written with four digits, None is a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
        """Build a table; every row has as many values as there are columns."""
        body = tuple(tuple(row) for row in rows)
        for row in body:
            if len(row) != len(columns):
                raise ValueError(f"a row of {len(row)} values under {len(columns)} columns")
        return cls(tuple(columns), body)

    @property
    def numeric(self) -> list[bool]:
        """Return for each column whether it has only numbers or quantities ("4.7 KiB")."""
        found = []
        for i in range(len(self.columns)):
            values = [row[i] for row in self.rows if row[i] not in (None, "", "–")]
            found.append(bool(values) and all(map(_is_quantity, values)))
        return found

    def text(self) -> str:
        """Return the table for the console."""
        from vcell import console

        return console.table(self.rows, self.columns)

    def markdown(self) -> str:
        """Return the table for Markdown."""
        rule = ["---:" if right else "---" for right in self.numeric]
        lines = [self.columns, rule, *self._shown()]
        return "\n".join("| " + " | ".join(_cell(v) for v in line) + " |" for line in lines)

    def csv(self) -> str:
        """Return the table as CSV, with all digits of every number."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()

    def html(self) -> str:
        """Return the table for a page; numbers and their headings are right-aligned.

        In a window too narrow for it, rows become blocks of lines with their headings, or the first
        column stays in place while the others scroll: see `_narrow`.
        """
        numeric, shown = self.numeric, self._shown()
        narrow = self._narrow(shown, numeric)
        heads = self.columns if narrow == "stack" else ()
        head = _line("th", self.columns, numeric)
        body = "".join(f"<tr>{_line('td', row, numeric, heads)}</tr>" for row in shown)
        top = f"<thead><tr>{head}</tr></thead>" if any(self.columns) else ""
        kind = f' class="{narrow}"' if narrow else ""
        return f'<div class="wide"><table{kind}>{top}<tbody>{body}</tbody></table></div>'

    def _shown(self) -> list[list[str]]:
        """Return the text of every cell; numbers of a column have the same decimals."""
        columns = []
        for i in range(len(self.columns)):
            values = [row[i] for row in self.rows]
            known = [value for value in values if value is not None]
            if known and all(isinstance(v, Real) and not isinstance(v, Integral) for v in known):
                written = iter(axes.column([float(v) for v in known], words))
                columns.append([words(v) if v is None else next(written) for v in values])
            else:
                columns.append([words(value) for value in values])
        return [list(row) for row in zip(*columns, strict=True)]

    def _narrow(self, shown: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
        """Return what a telephone does with a table that is too wide for it.

        Numbers are compared along their column: it scrolls, and the first column stays ("stick").
        Rows of words, or a few long ones, are read one by one: each becomes a block ("stack").
        """
        if not any(self.columns):
            return ""
        wide = 0.0
        for i, name in enumerate(self.columns):
            cells = [_least_width(row[i], right=numeric[i]) for row in shown]
            wide += _GAP + max([_word_width(name), *cells])
        if wide <= _PHONE:
            return ""
        worded = any(len(row[i]) > _ONE_LINE and " " in row[i] and not numeric[i]
                     for row in shown for i in range(1, len(self.columns)))  # fmt: skip
        compared = sum(numeric[1:]) > 1  # columns of numbers
        read = worded and not (compared and len(shown) > _MANY)
        few = len(shown) <= _FEW and wide > 1.5 * _PHONE
        return "stack" if read or few else "stick"


def breakable(text: str) -> str:
    """Escape words; let long ones break behind / _ | + and = rather than between two letters."""
    return _LONG.sub(lambda found: _JOINT.sub(r"\1<wbr>", found[0]), escape(text))


def prose(text: str) -> str:
    """Escape a sentence; a number and the % behind it stay on one line."""
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", escape(text))


def _least_width(text: str, *, right: bool) -> float:
    """Estimate how narrow a cell can be, in pixels; the style sheet sets limits for words."""
    if right:
        return _word_width(text)
    kind = _class_of(text)
    least = {"l": 176.0, "m": 112.0, "s": _SCALE * width_of(text)}.get(kind, 0.0)
    return min(max(least, _word_width(text)), 234.0 if kind == "l" else 176.0)


def _word_width(text: str) -> float:
    return _SCALE * max((width_of(word) for word in _PIECE.split(text)), default=0.0)


def words(value: Any) -> str:
    """Format one value for readers."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)
    if isinstance(value, Integral):
        return f"{value:,}"
    if math.isnan(value):
        return "–"
    # below 1,000 not by `number`, which takes what is tiny for noise: a p-value is none
    return number(float(value)) if abs(value) >= 1000 else f"{value:.4g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_quantity(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and _QUANTITY.fullmatch(value) is not None)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _line(
    tag: str, values: Sequence[str], numeric: Sequence[bool], heads: Sequence[str] = ()
) -> str:
    return "".join(
        f"<{tag}{_kind(tag, value, right=right)}{_head(heads, i)}>{breakable(value)}</{tag}>"
        for i, (value, right) in enumerate(zip(values, numeric, strict=True))
    )


def _head(heads: Sequence[str], i: int) -> str:
    """Return the attribute with the heading that a stacked row shows before a value."""
    return f' data-of="{escape(heads[i], quote=True)}"' if i and heads else ""


def _kind(tag: str, text: str, *, right: bool) -> str:
    found = "n" if right else _class_of(text) if tag == "td" else ""
    return f' class="{found}"' if found else ""


def _class_of(text: str) -> str:
    """Return the class of a cell: a sentence, some words, or few, which are kept on one line."""
    if len(text) > _SENTENCE and " " in text:
        return "l"
    if len(text) > _ONE_LINE and " " in text:
        return "m"
    return "s" if text and len(text) <= _ONE_LINE and (" " in text or "-" in text) else ""
