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

from vcell.report.axes import number

_ONE_LINE = 16  # letters: "312 B", "type-0", ".578 to .962"
_SENTENCE = 40  # letters: a longer cell needs a wider column
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
        lines = [self.columns, rule, *([words(v) for v in row] for row in self.rows)]
        return "\n".join("| " + " | ".join(_cell(v) for v in line) + " |" for line in lines)

    def csv(self) -> str:
        """Return the table as CSV, with all digits of every number."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()

    def html(self) -> str:
        """Return the table for a page; numbers and their headings are right-aligned."""
        numeric = self.numeric
        head = _line("th", self.columns, numeric)
        body = "".join(f"<tr>{_line('td', row, numeric)}</tr>" for row in self.rows)
        top = f"<thead><tr>{head}</tr></thead>" if any(self.columns) else ""
        return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


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


def _line(tag: str, values: Sequence[Any], numeric: Sequence[bool]) -> str:
    return "".join(
        f"<{tag}{_kind(tag, words(value), right=right)}>{escape(words(value))}</{tag}>"
        for value, right in zip(values, numeric, strict=True)
    )


def _kind(tag: str, text: str, *, right: bool) -> str:
    """Return the class of a cell: a number, a sentence, some words, or few, kept on one line."""
    if right:
        return ' class="n"'
    if tag == "td" and len(text) > _SENTENCE and " " in text:
        return ' class="l"'
    if tag == "td" and len(text) > _ONE_LINE and " " in text:
        return ' class="m"'
    short = tag == "td" and len(text) <= _ONE_LINE and (" " in text or "-" in text)
    return ' class="s"' if short else ""
