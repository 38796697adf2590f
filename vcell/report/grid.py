"""A heat map with named rows and columns, for small tables. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vcell import console
from vcell.report import axes, frame, pixels
from vcell.report.axes import number

_ROW, _LEGEND, _NAME = 17.0, 46.0, 110.0  # pixels: row height, space above, width of names
_GAP, _RAMP = 0.6, 170.0
_FEW = 0.1  # share of values that may lie beyond the scale, such as one row


def named_heat_map(
    values: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    legend: str = "",
    hover: Mapping[str, Sequence[str]] | None = None,
    signed: bool = True,
) -> str:
    """Draw values as a grid: zero is white, blue below, red above, grey where missing.

    The colours of a few values far out are those of the scale's ends, so that others are seen.

    Parameters
    ----------
    values
        A row of numbers for each name, from the top.
    columns
        Names of the columns, written upwards below the grid.
    hover
        Text in the tooltip of each value, after the value.
    signed
        If not, colours go from the lowest value (dark) to the highest (light).
    """
    finite = [v for row in values.values() for v in row if math.isfinite(v)]
    if not finite or not columns:
        return frame.empty("nothing to show: no value is finite")
    most = axes.reach(finite, _FEW) or 1.0
    low, high = (-most, most) if signed else (min(finite), max(finite))
    label = min(_NAME, 10 + max(map(frame.width_of, values)))
    wide = (frame.WIDTH - label - 4) / len(columns)
    foot = min(_NAME, 10 + max(map(frame.width_of, columns)))
    beyond = signed and any(abs(v) > most for v in finite)
    missing = len(values) * len(columns) - len(finite)
    parts = _legend(label, legend, (low, high), missing, signed=signed, beyond=beyond)
    for at, (name, row) in enumerate(values.items()):
        top = _LEGEND + at * _ROW
        short = frame.shortened(name, label - 8)
        parts.append(f"<g>{frame.hover(name)}{frame.text(label - 5, top + 12.5, short, 'end')}</g>")
        more = (hover or {}).get(name, [""] * len(columns))
        for place, (value, words) in enumerate(zip(row, more, strict=True)):
            shown = number(value) if math.isfinite(value) else "no value"
            share = (value - low) / ((high - low) or 1.0)
            red, green, blue = pixels.signed(2 * share - 1) if signed else pixels.ramp(share)
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


def _legend(
    left: float,
    words: str,
    ends: tuple[float, float],
    missing: int,
    *,
    signed: bool,
    beyond: bool,
) -> list[str]:
    colour = (lambda share: pixels.signed(2 * share - 1)) if signed else pixels.ramp
    low, high = (number(end) for end in ends)
    if beyond:
        low, high = f"≤ {low}", f"≥ {high}"
    parts = [
        frame.text(left, 11, words),
        pixels.image(
            left, 16, (_RAMP, 9), pixels.png([[colour(i / 99) for i in range(100)]], (100, 1))
        ),
        frame.text(left, 37, low),
        frame.text(left + _RAMP, 37, high, "end"),
    ]
    if missing:
        parts.append(frame.text(left + _RAMP + 8, 24, f"grey: none ({missing:,})"))
    return parts
