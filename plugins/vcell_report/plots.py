"""Every curve of a run as a file: SVG, and PNG if matplotlib is installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console, outputs
from vcell.report.files import alone, drawable, png

if TYPE_CHECKING:
    from vcell.report import Chart


def write(charts: Sequence[Chart], folder: Path, *, overwrite: bool) -> list[Path]:
    """Write the curves into a folder; return the files."""
    names = [_name(chart.title) for chart in charts]
    endings = (".svg", ".png") if drawable() else (".svg",)
    targets = [folder / f"{name}{ending}" for name in names for ending in endings]
    outputs.check(*targets, overwrite=overwrite, parents=True)
    if not drawable():
        console.say("PNG files need matplotlib: pip install 'vcell[plots]'; SVG files are written")
    with outputs.together(*targets) as asides:
        each = iter(asides)
        for chart in charts:
            next(each).write_text(alone(chart.svg()), encoding="utf-8")
            if drawable():
                png(next(each), partial(_draw, chart))
    return targets


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _draw(chart: Chart, axes: Any) -> None:
    """Draw a chart with matplotlib."""
    for curve in chart.curves:
        if not curve.x:
            continue
        axes.plot(curve.x, curve.mean, label=curve.name, marker="." if len(curve.x) == 1 else None)
        axes.fill_between(curve.x, curve.low, curve.high, alpha=0.2, linewidth=0)
    for name, value in chart.marks.items():
        axes.axhline(value, linestyle="--", color="grey", label=name)
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
