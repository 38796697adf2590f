"""Help texts that fit the terminal, also one of 40 columns.

click lays them out in 50 columns or more, with the names of options beside their texts.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterable, Sequence

import click

_INDENT = 2  # columns before an example
_EXAMPLE = 80  # columns: wider terminals leave an example broken like this one
_STACKED = 58  # columns: if there are fewer, an option's text begins below its name
_LEAST = 24


class Formatter(click.HelpFormatter):
    """click's formatter without its least width."""

    def __init__(
        self,
        indent_increment: int = _INDENT,
        width: int | None = None,
        max_width: int | None = None,
    ) -> None:
        if width is None:
            width = max(min(_columns(), max_width or 80) - 2, _LEAST)
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write names with their texts, side by side if there is room."""
        if self.width >= _STACKED:
            super().write_dl(list(rows), col_max, col_spacing)
            return
        for name, text in rows:
            self.write_text(name)
            if text:
                with self.indentation(), self.indentation():
                    self.write_text(text)


class FittedContext(click.Context):
    """A context whose help texts fit the terminal."""

    formatter_class = Formatter


def prepared(text: str) -> str:
    """Return a docstring as a help text, with its examples broken to fit."""
    # an example follows a backspace, or its escape in a raw string: click does not rewrap it
    parts = re.split(r"^(?:[\b]|\\b)\n", inspect.cleandoc(text), flags=re.MULTILINE)
    for k in range(1, len(parts)):
        example, blank, rest = parts[k].partition("\n\n")
        parts[k] = "\n".join(_fitted(example.split("\n"), min(_columns(), _EXAMPLE) - _INDENT))
        parts[k] += blank + rest
    return "\b\n".join(parts)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _fitted(lines: Sequence[str], width: int) -> list[str]:
    """Break commands that are too wide, as one breaks them in a shell."""
    fitted = []
    for line in _at_the_left(lines) if width < _STACKED else lines:
        rest, begin = line, max(line.find("vcell "), len(line) - len(line.lstrip()))
        while len(rest) > width:
            cut = rest.rfind(" -", begin + 6, width)  # before an option, if there is one
            if cut < 0:
                cut = rest.rfind(" ", begin + 6, width - 1)
            if cut < 0:
                break
            fitted.append(f"{rest[:cut]} \\")
            rest = " " * (begin + 4) + rest[cut + 1 :]
        fitted.append(rest)
    return fitted


def _at_the_left(lines: Sequence[str]) -> list[str]:
    """Put whole commands below the word "Example:", which stands before the first one."""
    left = []
    for line in re.sub(r" *\\\n *", " ", "\n".join(lines)).split("\n"):
        head, command, rest = line.partition("vcell ")
        left += [head.strip()] * bool(head.strip())
        left += [f"  {command}{rest}"] * bool(command)
    return left
