"""Estimates with their intervals, one per row, for ablations and comparisons.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from vcell.report import axes, frame
from vcell.report.axes import number
from vcell.report.frame import BOTTOM, RIGHT, TOP, WIDTH

_ROW, _NAME = 20.0, 170.0  # pixels: height of a row, maximum width of a name


def intervals(rows: Mapping[str, tuple[float, float, float]], *, x: str = "") -> str:
    """Draw (estimate, low, high) of each name as a dot on a line; 0 is a dashed line.

    An interval without finite ends is not drawn; an estimate that is not finite is "no value".
    """
    finite = [v for row in rows.values() if math.isfinite(row[0]) for v in row if math.isfinite(v)]
    if not finite:
        return frame.empty("nothing to show: no value is finite")
    label = min(_NAME, 12 + max(map(frame.width_of, rows)))
    axis = axes.linear([*finite, 0.0], label, WIDTH - RIGHT)
    bottom = _ROW * len(rows) + TOP
    parts = [
        frame.x_axis(axis, TOP, bottom, x),
        f'<path class="dash" d="M{axis.at(0.0):.1f} {TOP}V{bottom:.1f}"/>',
    ]
    for row, (name, (value, low, high)) in enumerate(rows.items()):
        y = TOP + _ROW * (row + 0.5)
        shown = frame.row_name(name, label, y + 4)
        if not math.isfinite(value):
            description = f"{name}: no value"
            drawn = frame.text(label + 4, y + 4, "no value")
        else:
            description, drawn = f"{name}: {number(value)}", ""
            if math.isfinite(low) and math.isfinite(high):
                description += f" ({number(low)} to {number(high)})"
                drawn = f'<path class="line s0" d="M{axis.at(low):.1f} {y}H{axis.at(high):.1f}"/>'
            drawn += f'<path class="dots big s0" d="M{axis.at(value):.1f} {y}h0"/>'
        parts.append(f"<g>{frame.hover(description)}{shown}{drawn}</g>")
    return frame.drawing(parts, bottom + BOTTOM, f"{x or 'estimates'} of {', '.join(rows)}")
