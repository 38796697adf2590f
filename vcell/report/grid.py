"""A heat map with named rows and columns, for small tables. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vcell import console
from vcell.report import frame, pixels
from vcell.report.axes import number

_ROW, _LEGEND, _NAME = 17.0, 46.0, 110.0  # pixels: row height, space above, width of names
_GAP, _RAMP = 0.6, 170.0


def named_heat_map(
    values: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    legend: str = "",
    hover: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Draw signed values as a grid: zero is white, blue below, red above, grey where missing.

    Parameters
    ----------
    values
        A row of numbers for each name, from the top.
    columns
        Names of the columns, written upwards below the grid.
    hover
        Text in the tooltip of each value, after the value.
    """
    finite = [abs(v) for row in values.values() for v in row if math.isfinite(v)]
    if not finite or not columns:
        return frame.empty("nothing to show: no value is finite")
    most = max(finite) or 1.0
    label = min(_NAME, 10 + max(map(frame.width_of, values)))
    wide = (frame.WIDTH - label - 4) / len(columns)
    foot = min(_NAME, 10 + max(map(frame.width_of, columns)))
    parts = _legend(label, legend, most, len(values) * len(columns) - len(finite))
    for at, (name, row) in enumerate(values.items()):
        top = _LEGEND + at * _ROW
        short = frame.shortened(name, label - 8)
        parts.append(f"<g>{frame.hover(name)}{frame.text(label - 5, top + 12.5, short, 'end')}</g>")
        more = (hover or {}).get(name, [""] * len(columns))
        for place, (value, words) in enumerate(zip(row, more, strict=True)):
            shown = number(value) if math.isfinite(value) else "no value"
            red, green, blue = pixels.signed(value / most)
            parts.append(
                f'<rect x="{label + place * wide:.1f}" y="{top:.1f}" '
                f'width="{max(wide - _GAP, 0.5):.1f}" height="{_ROW - _GAP:.1f}" '
                f'fill="rgb({red},{green},{blue})">'
                f"{frame.hover(f'{name}, {columns[place]}: {shown}{words}')}</rect>"
            )
    bottom = _LEGEND + len(values) * _ROW
    step = max(1, math.ceil(11 / wide))  # skip names that would overlap
    for place in range(0, len(columns), step):
        short = frame.shortened(columns[place], foot - 8)
        x = label + (place + 0.5) * wide + 4
        parts.append(frame.rotated(x, bottom + 5, short, "end"))
    rows, of = console.count(len(values), "row"), console.count(len(columns), "column")
    words = f"{legend or 'heat map'}: {rows}, {of}"
    return frame.drawing(parts, bottom + foot, words)


def _legend(left: float, words: str, most: float, missing: int) -> list[str]:
    ramp = [[pixels.signed(i / 49.5 - 1) for i in range(100)]]
    parts = [
        frame.text(left, 11, words),
        pixels.image(left, 16, (_RAMP, 9), pixels.png(ramp, (100, 1))),
        frame.text(left, 37, number(-most)),
        frame.text(left + _RAMP, 37, number(most), "end"),
    ]
    if missing:
        parts.append(frame.text(left + _RAMP + 8, 24, f"grey: none ({missing:,})"))
    return parts
