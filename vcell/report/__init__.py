"""Reports: pages, their figures and their tables.

`Page` is one HTML file that loads nothing; `svg` draws pictures; `Curve` and `Chart` are curves
that can be zoomed and read; `Table` is written as text, Markdown, HTML or CSV; `Markdown` has the
same methods as a page.
"""

from __future__ import annotations

from vcell import library
from vcell.report import svg
from vcell.report.curve import Chart, Curve
from vcell.report.markdown import Markdown, Report
from vcell.report.page import Page
from vcell.report.table import Table

__all__ = ["Chart", "Curve", "Markdown", "Page", "Report", "Table", "svg"]

library.callable_module(__name__, "report")
