"""Every curve of a run as a file: SVG always, PNG where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from vcell import console, outputs
from vcell.outputs import MADE_BY, made_by

if TYPE_CHECKING:
    from vcell.report import Chart


def write(charts: Sequence[Chart], folder: Path, *, overwrite: bool) -> list[Path]:
    """Write the curves into a folder; return the files."""
    names = [_name(chart.title) for chart in charts]
    drawable = importlib.util.find_spec("matplotlib") is not None
    if not drawable:
        console.say("PNG files need matplotlib: pip install 'vcell[plots]'; SVG files are written")
    endings = (".svg", ".png") if drawable else (".svg",)
    targets = [folder / f"{name}{ending}" for name in names for ending in endings]
    outputs.check(*targets, overwrite=overwrite, parents=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in zip(names, charts, strict=True):
        outputs.write_text(folder / f"{name}.svg", _alone(chart.svg()))
        if drawable:
            _png(chart, folder / f"{name}.png")
    return targets


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _alone(svg: str) -> str:
    """Give a picture what it needs outside a page: its namespace and the style sheet."""
    style = resources.files("vcell.report").joinpath("page.css").read_text(encoding="utf-8")
    head, _, rest = svg.partition(">")
    mark = f"<!-- {MADE_BY}: {made_by()} -->"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{mark}<style>{style}</style>{rest}'


def _png(chart: Chart, path: Path) -> None:
    """Draw a chart by matplotlib, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
    with outputs.whole(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": f"{MADE_BY}: {made_by()}"})
