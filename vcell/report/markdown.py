"""The same report as Markdown: the contents of a page as text. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vcell.report.table import Table, words

if TYPE_CHECKING:
    from vcell.report.curve import Chart


class Report(Protocol):
    """What a report is written into: a `Page` or `Markdown`."""

    def headline(self, words: str, detail: str = "", tone: Any = "plain") -> None:
        """Add the main result."""

    def heading(self, words: str) -> None:
        """Begin a section."""

    def text(self, words: str) -> None:
        """Add a paragraph."""

    def warnings(self, lines: Iterable[str]) -> None:
        """Add a list of warnings."""

    def links(self, links: Mapping[str, str]) -> None:
        """Add links to files next to the report: text to file name."""

    def facts(self, facts: Mapping[str, Any], fold: str = "") -> None:
        """Add a table of names and values."""

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], fold: str = "") -> None:
        """Add a table."""

    def figure(self, title: str, svg: str, caption: str = "") -> None:
        """Add a picture."""

    def chart(self, chart: Chart) -> None:
        """Add curves."""


class Markdown:
    """Collects a report as Markdown, with captions and numbers instead of pictures."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._lines = [f"# {title}", ""]
        if subtitle:
            self.text(subtitle)

    def headline(self, words: str, detail: str = "", tone: str = "plain") -> None:
        """Add the main result."""
        self.text(f"**{words}**" + (f" {detail}" if detail else ""))

    def heading(self, words: str) -> None:
        """Begin a section."""
        self._lines += [f"## {words}", ""]

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self._lines += [words, ""]

    def warnings(self, lines: Iterable[str]) -> None:
        """Add a list of warnings."""
        self._lines += [*(f"- {line}" for line in lines), ""]

    def links(self, links: Mapping[str, str]) -> None:
        """Add links to files next to the report."""
        self._lines += [*(f"- [{name}]({address})" for name, address in links.items()), ""]

    def facts(self, facts: Mapping[str, Any], fold: str = "") -> None:
        """Add names and values as a list."""
        self._lines += [*(f"- {name}: {words(value)}" for name, value in facts.items()), ""]

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        fold: str = "",
    ) -> None:
        """Add a table, with the text that a page folds it under."""
        if fold:
            self.text(f"{fold[:1].upper()}{fold[1:]}:")
        self._lines += [Table.of(columns, rows).markdown(), ""]

    def figure(self, title: str, svg: str, caption: str = "") -> None:
        """Add a picture's caption."""
        if caption:
            self.text(f"{title}: {caption}")

    def chart(self, chart: Chart) -> None:
        """Add a chart's sentence and its table."""
        self._lines += [f"### {chart.title}", ""]
        if chart.reading:
            self.text(chart.reading)
        self._lines += [chart.table().markdown(), ""]

    def markdown(self, made_by: str = "") -> str:
        """Return the whole document; `made_by` is written as a comment under the title."""
        title, *rest = self._lines
        mark = [f"<!-- made-by: {made_by} -->"] if made_by else []
        return "\n".join([title, *mark, *rest]).rstrip() + "\n"
