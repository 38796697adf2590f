"""Figures made of pixels: a heat map, a density of points. Each is one small PNG inside the SVG.

A PNG is far smaller than an SVG element per cell.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcell import console
from vcell.report import frame
from vcell.report.axes import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    import numpy as np  # here: pages without pictures start sooner

    cells = np.asarray(matrix, np.float64)
    finite = np.isfinite(cells)
    if not finite.any():
        return frame.empty("nothing to show: no value is finite")
    low, high = float(cells[finite].min()), float(cells[finite].max())
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    ramp = _SIGNED if signed else _RAMP
    span = (high - low) or 1.0
    size = (cells.shape[1], cells.shape[0])
    side = frame.WIDTH - 36.0
    least = max(24.0, frame.width_of(rows) + 4)  # the name of the rows stands beside them
    tall = side if size[1] >= size[0] / 3 else max(least, side * size[1] / size[0])
    picture = _colours((cells - low) / span, ramp)
    missing = cells.size - int(finite.sum())
    top, left, foot = 44.0, 24.0, 20.0
    parts = [
        frame.text(left, 12, legend),
        image(left, 18, (150, 10), _png(_colours(np.arange(100)[None] / 99, ramp))),
        frame.text(left, 39, number(low)),
        frame.text(left + 150, 39, number(high), "end"),
        image(left, top, (side, tall), _png(picture)),
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


def _colours(shares: NDArray[np.float64], ramp: Ramp) -> NDArray[np.uint8]:
    """Interpolate the ramp at shares between 0 and 1; grey for NaN. The last axis is the colour."""
    import numpy as np

    finite = np.isfinite(shares)
    position = np.clip(np.where(finite, shares, 0.0), 0.0, 1.0) * (len(ramp) - 1)
    index = np.minimum(position.astype(np.int64), len(ramp) - 2)
    stops = np.array(ramp, np.float64)
    rest = (position - index)[..., None]
    mixed = np.rint(stops[index] + rest * (stops[index + 1] - stops[index]))
    return np.where(finite[..., None], mixed, _MISSING).astype(np.uint8)


def signed(share: float) -> tuple[int, int, int]:
    """Return the colour of a value between -1 and 1: zero is white, NaN grey."""
    return _one((share + 1) / 2, _SIGNED)


def ramp(share: float) -> tuple[int, int, int]:
    """Return the colour of a value between 0 (dark) and 1 (light); NaN is grey."""
    return _one(share, _RAMP)


def _one(share: float, stops: Ramp) -> tuple[int, int, int]:
    import numpy as np

    red, green, blue = _colours(np.array(share), stops).tolist()
    return (red, green, blue)


def png(
    rows: Sequence[Sequence[tuple[int, ...]]], size: tuple[int, int], *, alpha: bool = False
) -> str:
    """Encode pixels as a PNG in a data URL."""
    import numpy as np

    return _png(np.array(rows, np.uint8).reshape(size[1], size[0], 4 if alpha else 3))


def _png(picture: NDArray[np.uint8]) -> str:
    """Encode ``[rows, columns, 3 or 4]`` as a PNG in a data URL."""
    import numpy as np

    height, width, channels = picture.shape
    lines = picture.reshape(height, width * channels)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    size, alpha = (width, height), channels == 4
    header = struct.pack(">IIBBBBB", *size, 8, 6 if alpha else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
