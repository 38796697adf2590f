"""A page of results in one HTML file that loads nothing else. Standard library only.

    page = Page("vcell evaluate", "prediction.h5ad against real.h5ad")
    page.headline("ridge beats the baselines by .04 (.01 to .07)", tone="good")
    page.table(("metric", "raw"), [("mae", 0.02)])
    page.figure("Scores", svg.bars({"TMSB4X": 0.8}), "One bar per perturbation.")
    page.write(Path("index.html"))

Everything shown is escaped. The security policy allows only this style sheet and, on pages with
curves, one script, both by their hash, and pictures inside the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vcell.outputs import made_by, write_text
from vcell.report.table import Table, breakable, prose

if TYPE_CHECKING:
    from vcell.report.curve import Chart

Tone = Literal["good", "bad", "plain"]


class Page:
    """Collects headings, words, tables and figures, in order, and writes them as one file."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._body: list[str] = []
        self._grid = ""  # the class of the open grid, if any
        self._curves = False  # whether the script is needed

    def headline(self, words: str, detail: str = "", tone: Tone = "plain") -> None:
        """Add the main result."""
        small = f"<small>{prose(detail)}</small>" if detail else ""
        self._add(f'<p class="verdict {tone}">{prose(words)}{small}</p>')

    def heading(self, words: str) -> None:
        """Begin a section."""
        self._add(f"<h2>{escape(words)}</h2>")

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self._add(f"<p>{prose(words)}</p>")

    def warnings(self, lines: Iterable[str]) -> None:
        """Add a list of warnings."""
        items = "".join(f"<li>{prose(line)}</li>" for line in lines)
        self._add(f'<ul class="warnings">{items}</ul>')

    def links(self, links: Mapping[str, str]) -> None:
        """Add links to files next to this page: text to file name."""
        items = "".join(
            f'<li><a href="{escape(address, quote=True)}">{escape(words)}</a></li>'
            for words, address in links.items()
        )
        self._add(f"<ul>{items}</ul>")

    def facts(self, facts: Mapping[str, Any], fold: str = "") -> None:
        """Add a table of names and values; None is shown as a dash."""
        self.table(("", ""), [(name, value) for name, value in facts.items()], fold)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], fold: str = "") -> None:
        """Add a table; numbers are right-aligned. With `fold`, it is collapsed under that text."""
        html = Table.of(columns, rows).html()
        if fold:
            html = f"<details><summary>{escape(fold)}</summary>{html}</details>"
        self._add(html)

    def figure(self, title: str, svg: str, caption: str = "") -> None:
        """Add a picture made by `vcell.report.svg`; consecutive figures are side by side."""
        self._in_grid("figures")
        words = f"<figcaption>{prose(caption)}</figcaption>" if caption else ""
        self._body.append(f"<figure><h3>{escape(title)}</h3>{svg}{words}</figure>")

    def chart(self, chart: Chart) -> None:
        """Add a figure of curves that can be zoomed and read."""
        self._in_grid("curves")
        self._body.append(chart.html())
        self._curves = True

    def html(self) -> str:
        """Return the whole document."""
        self._close()
        style, script = _resource("page.css"), _resource("curves.js") if self._curves else ""
        policy = f"default-src 'none'; style-src {_hash(style)}; img-src data:"
        if script:
            policy += f"; script-src {_hash(script)}"
        end = f"<script>{script}</script>" if script else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="generator" content="{made_by()}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'  # browsers ask the server for one otherwise
            f"<title>{escape(self.title)}</title><style>{style}</style></head>\n"
            f'<body><h1>{breakable(self.title)}</h1><p class="sub">{breakable(self.subtitle)}</p>\n'
            + "\n".join(self._body)
            + f"\n{end}</body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the document to a temporary file, then rename it."""
        write_text(path, self.html())

    def _add(self, html: str) -> None:
        self._close()
        self._body.append(html)

    def _in_grid(self, kind: str) -> None:
        """Open a grid of a kind, unless it is open already."""
        if self._grid != kind:
            self._close()
            self._body.append(f'<div class="{kind}">')
            self._grid = kind

    def _close(self) -> None:
        if self._grid:
            self._body.append("</div>")
            self._grid = ""


@functools.cache
def _resource(name: str) -> str:
    return resources.files("vcell.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
