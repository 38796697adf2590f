"""Pictures as inline SVG: lines, points, bars, histograms, heat maps. Standard library only.

Each function returns one ``<svg>`` element for `vcell.report.Page.figure`. Values that are not
finite are left out; if none is left, the picture says so. A tooltip names the element under the
pointer.
"""

from __future__ import annotations

import math

from vcell.report import axes, frame
from vcell.report.axes import number
from vcell.report.bins import density, histogram
from vcell.report.clouds import line, scatter, volcano
from vcell.report.frame import WIDTH
from vcell.report.grid import named_heat_map
from vcell.report.intervals import intervals
from vcell.report.pixels import heat_map
from vcell.report.rows import bars, stacked, strip

__all__ = [
    "bars", "density", "gauge", "heat_map", "histogram", "intervals", "line", "named_heat_map",
    "scatter", "stacked", "strip", "volcano",
]  # fmt: skip


def gauge(value: float, *, low: float, high: float, low_name: str, high_name: str) -> str:
    """Draw a value between two reference points, such as baseline and ceiling."""
    if not all(map(math.isfinite, (value, low, high))):
        return frame.empty("no value")
    axis = axes.linear([value, low, high], 16, WIDTH - 16)
    y = 34.0
    ends = sorted((axis.at(low), axis.at(high)))
    parts = [
        f'<path class="grid thick" d="M16 {y}H{WIDTH - 16}"/>',
        f'<path class="s0 thick" d="M{ends[0]:.1f} {y}H{ends[1]:.1f}" stroke-opacity="0.35"/>',
    ]
    for at, words, up in ((low, low_name, 20), (high, high_name, 20), (value, "", 0)):
        place = axis.at(at)
        if words:
            half = frame.width_of(words) / 2
            within = min(max(place, half + 1), WIDTH - half - 1)
            parts.append(f'<path class="axis" d="M{place:.1f} {y - 9}v18"/>')
            parts.append(frame.text(within, y - up + 4, words, "middle"))
    at = axis.at(value)
    parts.append(
        f'<path class="f1" d="M{at:.1f} {y + 3}l-6 11h12z">{frame.hover(number(value))}</path>'
    )
    half = frame.width_of(number(value)) / 2
    within = min(max(at, half + 1), WIDTH - half - 1)
    parts.append(frame.text(within, y + 27, number(value), "middle"))
    words = f"{number(value)} between {low_name} {number(low)} and {high_name} {number(high)}"
    return frame.drawing(parts, 68, words)
