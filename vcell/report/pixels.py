"""Figures made of pixels: a heat map, a density of points. Each is one small PNG inside the SVG.

A PNG is far smaller than an SVG element per cell. Standard library only.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence

from vcell import console
from vcell.report import frame
from vcell.report.axes import number

# viridis at eight stops: readable in grey and by the colour-blind
_RAMP = (
    (68, 1, 84), (70, 50, 127), (54, 92, 141), (39, 127, 142),
    (31, 161, 135), (74, 194, 109), (159, 218, 58), (253, 231, 37),
)  # fmt: skip
# blue through white to red (ColorBrewer's RdBu): signed values, zero is white
_SIGNED = (
    (33, 102, 172), (103, 169, 207), (209, 229, 240), (255, 255, 255),
    (253, 219, 199), (239, 138, 98), (178, 24, 43),
)  # fmt: skip
_MISSING = (150, 150, 150)

Ramp = Sequence[tuple[int, int, int]]


def heat_map(
    matrix: Sequence[Sequence[float]],
    *,
    rows: str = "",
    columns: str = "",
    legend: str = "",
    signed: bool = False,
) -> str:
    """Draw a matrix as a picture, from its lowest value (dark) to its highest (light).

    With `signed`, zero is white and the scale is symmetric. A value that is not finite is grey, and
    the legend says so.
    """
    cells = [[float(value) for value in row] for row in matrix]
    finite = [value for row in cells for value in row if math.isfinite(value)]
    if not finite:
        return frame.empty("nothing to show: no value is finite")
    low, high = min(finite), max(finite)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    ramp = _SIGNED if signed else _RAMP
    span = (high - low) or 1.0
    size = (len(cells[0]), len(cells))
    side = frame.WIDTH - 36.0
    least = max(24.0, frame.width_of(rows) + 4)  # the name of the rows stands beside them
    tall = side if size[1] >= size[0] / 3 else max(least, side * size[1] / size[0])
    picture = [[_colour((value - low) / span, ramp) for value in row] for row in cells]
    missing = sum(map(len, cells)) - len(finite)
    top, left, foot = 44.0, 24.0, 20.0
    parts = [
        frame.text(left, 12, legend),
        image(left, 18, (150, 10), png([[_colour(i / 99, ramp) for i in range(100)]], (100, 1))),
        frame.text(left, 39, number(low)),
        frame.text(left + 150, 39, number(high), "end"),
        image(left, top, (side, tall), png(picture, size)),
        frame.text(left + side / 2, top + tall + 14, columns, "middle"),
        frame.rotated(14, top + tall / 2, rows),
    ]
    if missing:
        parts.append(frame.text(left + 165, 27, f"grey: no value ({missing:,})"))
    shown = f"{console.count(size[1], 'row')}, {console.count(size[0], 'column')}, "
    shown += f"{number(low)} to {number(high)}"
    return frame.drawing(parts, top + tall + foot, f"{legend or 'heat map'}: {shown}")


def density(counts: Sequence[Sequence[float]]) -> str:
    """Return the data URL of a transparent picture: the more points in a cell, the more opaque.

    `counts` has its rows from the top; the caller places the picture behind its axes.
    """
    most = math.log1p(max((value for row in counts for value in row), default=0.0)) or 1.0
    opaque = [
        [round(60 + 195 * math.log1p(value) / most) if value else 0 for value in row]
        for row in counts
    ]
    rows = [[(58, 140, 214, alpha) for alpha in row] for row in opaque]
    return png(rows, (len(counts[0]), len(counts)), alpha=True)


def image(x: float, y: float, size: tuple[float, float], address: str) -> str:
    """Place a picture made by `density` or `png`."""
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" '
        f'class="pixels" preserveAspectRatio="none" href="{address}"/>'
    )


def _colour(share: float, ramp: Ramp) -> tuple[int, int, int]:
    """Interpolate the ramp at `share` between 0 and 1; grey for NaN."""
    if not math.isfinite(share):
        return _MISSING
    position = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    index = min(int(position), len(ramp) - 2)
    rest = position - index
    red, green, blue = (
        round(a + rest * (b - a)) for a, b in zip(ramp[index], ramp[index + 1], strict=True)
    )
    return (red, green, blue)


def signed(share: float) -> tuple[int, int, int]:
    """Return the colour of a value between -1 and 1: zero is white, NaN grey."""
    return _colour((share + 1) / 2, _SIGNED)


def png(
    rows: Sequence[Sequence[tuple[int, ...]]], size: tuple[int, int], *, alpha: bool = False
) -> str:
    """Encode pixels as a PNG in a data URL."""
    raw = b"".join(b"\0" + bytes(c for pixel in row for c in pixel) for row in rows)
    header = struct.pack(">IIBBBBB", *size, 8, 6 if alpha else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
