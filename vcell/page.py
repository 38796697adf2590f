"""A page of results in one HTML file: no script, no network, light and dark. Standard library only.

    page = Page("vcell evaluate", "prediction.h5ad against real.h5ad")
    page.table(("metric", "raw"), [("mae", 0.02)])
    page.figure("Scores", svg.bars({"TMSB4X": 0.8}), "One bar per perturbation.")
    page.write(Path("index.html"))

Everything that is shown is escaped; the security policy allows this style sheet (by its hash) and
pictures embedded in the page, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from vcell.outputs import made_by, write_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #8a929c; --rule: #d9dde2;
  --c0: #2f6fb0; --c1: #c8553d; --c2: #3b8a52; --c3: #8660a8; --c4: #b8860b; --c5: #2a8f99;
  --c6: #b0447f; --c7: #5b6570; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #16191d; --faint: #8a929c;
  --rule: #333a42; --c0: #6aa7e6; --c1: #ee8a73; --c2: #6fc386; --c3: #bb98dc; --c4: #e0b64a;
  --c5: #62c4cd; --c6: #e385b8; --c7: #a7b0ba; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.sub, figcaption { color: var(--faint); }
table { border-collapse: collapse; display: block; max-width: 100%; overflow-x: auto; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--rule); text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1rem; }
figure { margin: 0; } figure h3 { font-size: 1rem; margin: 0.5rem 0; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg text { fill: var(--ink); } .axis { stroke: var(--faint); } .grid { stroke: var(--rule); }
.dash { stroke: var(--faint); stroke-dasharray: 4 3; } .pixels { image-rendering: pixelated; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.dots { stroke-width: 4; stroke-linecap: round; stroke-opacity: 0.55; } .big { stroke-width: 8; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); }
.s3 { stroke: var(--c3); } .s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); }
.s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); } .f0 { fill: var(--c0); }
@media print { body { margin: 0; max-width: none; } figure { break-inside: avoid; } }
"""


class Page:
    """Collects headings, words, tables and figures, in order, and writes them as one file."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._body: list[str] = []
        self._open = False  # whether a grid of figures is being filled

    def heading(self, words: str) -> None:
        """Begin a section."""
        self._add(f"<h2>{escape(words)}</h2>")

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self._add(f"<p>{escape(words)}</p>")

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add a table of names and values."""
        self.table(("", ""), [(name, value) for name, value in facts.items()])

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; numbers are right-aligned, None is a dash."""
        body = [list(row) for row in rows]
        numeric = [
            bool(body) and all(row[i] is None or isinstance(row[i], Real) for row in body)
            for i in range(len(columns))
        ]
        head = _cells("th", columns, numeric)
        lines = "".join(f"<tr>{_cells('td', row, numeric)}</tr>" for row in body)
        self._add(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>")

    def figure(self, title: str, svg: str, caption: str = "") -> None:
        """Add a picture made by `vcell.svg`; successive figures stand side by side."""
        if not self._open:
            self._body.append('<div class="figures">')
            self._open = True
        words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._body.append(f"<figure><h3>{escape(title)}</h3>{svg}{words}</figure>")

    def html(self) -> str:
        """Return the whole document."""
        self._close()
        digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="generator" content="{made_by()}">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head>\n"
            f'<body><h1>{escape(self.title)}</h1><p class="sub">{escape(self.subtitle)}</p>\n'
            + "\n".join(self._body)
            + "\n</body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the document aside, then put it in place."""
        write_text(path, self.html())

    def _add(self, html: str) -> None:
        self._close()
        self._body.append(html)

    def _close(self) -> None:
        if self._open:
            self._body.append("</div>")
            self._open = False


def _cells(tag: str, values: Sequence[Any], numeric: Sequence[bool]) -> str:
    pairs = zip(values, numeric, strict=True)
    return "".join(
        f'<{tag} class="{"n" if right else "w"}">{escape(_words(value))}</{tag}>'
        for value, right in pairs
    )


def _words(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
