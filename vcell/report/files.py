"""Figures as separate files: SVG that needs no page, and PNG where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from importlib import resources
from typing import TYPE_CHECKING, Any

from vcell import outputs
from vcell.outputs import MADE_BY, made_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def drawable() -> bool:
    """Whether PNG files can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def alone(svg: str) -> str:
    """Add namespace and style sheet, so that a picture can stand outside a page."""
    style = resources.files("vcell.report").joinpath("page.css").read_text(encoding="utf-8")
    head, _, rest = svg.partition(">")
    mark = f"<!-- {MADE_BY}: {made_by()} -->"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{mark}<style>{style}</style>{rest}'


def png(path: Path, draw: Callable[[Any], None]) -> None:
    """Let `draw` draw on matplotlib axes, without a display, and save the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    with outputs.whole(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": f"{MADE_BY}: {made_by()}"})
