"""Reports: pages, their figures and their tables.

`Page` is one HTML file that loads nothing; `svg` draws pictures; `Curve` and `Chart` are curves
that can be zoomed and read; `Table` is written as text, Markdown, HTML or CSV; `Markdown` has the
same methods as a page.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vcell import library

if TYPE_CHECKING:
    from vcell.report import svg
    from vcell.report.curve import Chart, Curve
    from vcell.report.markdown import Markdown, Report
    from vcell.report.page import Page
    from vcell.report.table import Table

__all__ = ["Chart", "Curve", "Markdown", "Page", "Report", "Table", "svg"]

_HOMES = {
    "Chart": "vcell.report.curve",
    "Curve": "vcell.report.curve",
    "Markdown": "vcell.report.markdown",
    "Page": "vcell.report.page",
    "Report": "vcell.report.markdown",
    "Table": "vcell.report.table",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access: text needs none of the pictures."""
    if name == "svg":
        return import_module("vcell.report.svg")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


library.callable_module(__name__, "report")
