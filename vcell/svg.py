"""Small pictures as inline SVG: lines, points, bars, heat maps. Standard library only.

Each function returns one ``<svg>`` element whose colours are classes (``s0`` to ``s7``, ``ink``,
``faint``) that `vcell.page` defines for light and dark. Values that are not finite are left out.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 46  # room for tick labels and the axis titles
_COLOURS = 8
# viridis at eight stops: readable in grey and by the colour-blind
_RAMP = (
    (68, 1, 84), (70, 50, 127), (54, 92, 141), (39, 127, 142),
    (31, 161, 135), (74, 194, 109), (159, 218, 58), (253, 231, 37),
)  # fmt: skip

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line(series: Series, *, x: str = "", y: str = "", log_x: bool = False) -> str:
    """Draw one line per series of (xs, ys)."""
    return _plot(series, x, y, _line_path, log_x=log_x)


def scatter(
    series: Series, *, x: str = "", y: str = "", diagonal: bool = False, log_x: bool = False
) -> str:
    """Draw one cloud of points per series of (xs, ys); `diagonal` adds the line y = x."""
    return _plot(series, x, y, _point_path, diagonal=diagonal, log_x=log_x)


def bars(values: Mapping[str, float], *, x: str = "", reference: float | None = None) -> str:
    """Draw one horizontal bar per name, in the order given; `reference` is a dashed line."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    low = min([0.0, *finite.values()])
    high = max([0.0, *finite.values(), *([] if reference is None else [reference])])
    label = min(220, 20 + 7 * max((len(name) for name in values), default=0))
    height = 18 * max(len(values), 1) + _TOP + _BOTTOM
    axis = _Axis(low, high if high > low else low + 1.0, label, WIDTH - _RIGHT)
    parts = [_x_axis(axis, height - _BOTTOM, x)]
    for row, (name, value) in enumerate(values.items()):
        top = _TOP + 18 * row
        shown = name if len(name) <= 30 else name[:29] + "…"
        parts.append(_text(label - 6, top + 12, shown, "end"))
        if math.isfinite(value):
            ends = sorted((axis.at(0.0), axis.at(value)))
            parts.append(
                f'<rect class="f0" x="{ends[0]:.1f}" y="{top}" width="{ends[1] - ends[0]:.1f}" '
                f'height="14"><title>{escape(name)}: {value:.4g}</title></rect>'
            )
    if reference is not None:
        at = axis.at(reference)
        parts.append(f'<path class="dash" d="M{at:.1f} {_TOP}V{height - _BOTTOM}"/>')
    return _svg(parts, height)


def heat_map(
    matrix: Sequence[Sequence[float]], *, rows: str = "", columns: str = "", legend: str = ""
) -> str:
    """Draw a matrix as a picture, from its lowest value (dark) to its highest (light)."""
    cells = [[float(value) for value in row] for row in matrix]
    finite = [value for row in cells for value in row if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    span = (high - low) or 1.0
    size, side = (len(cells[0]) if cells else 1, len(cells) or 1), 400
    picture = [[_colour((value - low) / span) for value in row] for row in cells]
    ramp = [[_colour(i / 99) for i in range(100)]]
    parts = [
        _image(30, _TOP, (side, side), _png(picture, size)),
        _text(30 + side / 2, side + _TOP + 18, columns, "middle"),
        _turned(18, _TOP + side / 2, rows),
        _image(460, _TOP + 20, (150, 12), _png(ramp, (100, 1))),
        _text(460, _TOP + 12, legend, "start"),
        _text(460, _TOP + 48, f"{low:.3g}", "start"),
        _text(610, _TOP + 48, f"{high:.3g}", "end"),
    ]
    return _svg(parts, side + _TOP + 30)


@dataclass(frozen=True)
class _Axis:
    """Maps values onto pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        share = (self._warp(value) - self._warp(self.low)) / (
            self._warp(self.high) - self._warp(self.low)
        )
        return self.start + share * (self.end - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)] or [self.low, self.high]
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _plot(
    series: Series,
    x: str,
    y: str,
    draw: Callable[[Sequence[tuple[float, float]], int], str],
    *,
    diagonal: bool = False,
    log_x: bool = False,
) -> str:
    """Draw axes, a legend where there are several series, and each series with `draw`."""
    shown = {name: _finite(*points, positive=log_x) for name, points in series.items()}
    xs = [a for points in shown.values() for a, _ in points]
    ys = [b for points in shown.values() for _, b in points]
    across = _axis(xs, _LEFT, WIDTH - _RIGHT, log=log_x)
    up = _axis(ys, HEIGHT - _BOTTOM, _TOP)
    parts = [_x_axis(across, HEIGHT - _BOTTOM, x), _y_axis(up, y)]
    if diagonal:
        low, high = max(across.low, up.low), min(across.high, up.high)
        if low < high:
            a, b, c, d = across.at(low), up.at(low), across.at(high), up.at(high)
            parts.append(f'<path class="dash" d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"/>')
    for number, points in enumerate(shown.values()):
        pixels = [(across.at(a), up.at(b)) for a, b in points]
        parts.append(draw(pixels, number % _COLOURS))
    if len(shown) > 1:
        parts += [_legend(number, name) for number, name in enumerate(shown)]
    return _svg(parts, HEIGHT)


def _finite(
    xs: Iterable[float], ys: Iterable[float], *, positive: bool
) -> list[tuple[float, float]]:
    pairs = ((float(a), float(b)) for a, b in zip(xs, ys, strict=True))
    return [
        (a, b)
        for a, b in pairs
        if math.isfinite(a) and math.isfinite(b) and (a > 0 or not positive)
    ]


def _axis(values: Sequence[float], start: float, end: float, *, log: bool = False) -> _Axis:
    low, high = min(values, default=1.0), max(values, default=2.0)
    if log:
        return _Axis(low, high if high > low else low * 10, start, end, log=True)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    return _Axis(low - room, high + room, start, end)


def _line_path(points: Sequence[tuple[float, float]], colour: int) -> str:
    if not points:
        return ""
    return f'<path class="line s{colour}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in points)}"/>'


def _point_path(points: Sequence[tuple[float, float]], colour: int) -> str:
    """Draw every point as a zero-length stroke with a round cap: one element for a whole cloud."""
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in points)
    return f'<path class="dots s{colour}" d="{dots}"/>' if dots else ""


def _x_axis(axis: _Axis, bottom: float, title: str) -> str:
    parts = [f'<path class="axis" d="M{axis.start} {bottom}H{axis.end}"/>']
    for tick in axis.ticks():
        at = axis.at(tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(_text(at, bottom + 16, _number(tick), "middle"))
    parts.append(_text((axis.start + axis.end) / 2, bottom + 36, title, "middle"))
    return "".join(parts)


def _y_axis(axis: _Axis, title: str) -> str:
    parts = [f'<path class="axis" d="M{_LEFT} {axis.start}V{axis.end}"/>']
    for tick in axis.ticks():
        at = axis.at(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, at + 4, _number(tick), "end"))
    parts.append(_turned(14, (axis.start + axis.end) / 2, title))
    return "".join(parts)


def _legend(number: int, name: str) -> str:
    top = _TOP + 10 + 16 * number
    return (
        f'<path class="dots big s{number % _COLOURS}" d="M{WIDTH - 150} {top}h0"/>'
        f"{_text(WIDTH - 138, top + 4, name, 'start')}"
    )


def _number(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _turned(x: float, y: float, words: str) -> str:
    return (
        f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" '
        f'text-anchor="middle">{escape(words)}</text>'
    )


def _image(x: float, y: float, size: tuple[int, int], address: str) -> str:
    return (
        f'<image x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" class="pixels" '
        f'preserveAspectRatio="none" href="{address}"/>'
    )


def _svg(parts: Iterable[str], height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'


def _colour(share: float) -> tuple[int, int, int]:
    """Interpolate the ramp at `share` between 0 and 1; grey where there is no value."""
    if not math.isfinite(share):
        return (160, 160, 160)
    position = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    index = min(int(position), len(_RAMP) - 2)
    rest = position - index
    red, green, blue = (
        round(a + rest * (b - a)) for a, b in zip(_RAMP[index], _RAMP[index + 1], strict=True)
    )
    return (red, green, blue)


def _png(rows: Sequence[Sequence[tuple[int, int, int]]], size: tuple[int, int]) -> str:
    """Encode pixels as a PNG in a data address: far smaller than one SVG element per cell."""
    raw = b"".join(b"\0" + bytes(c for pixel in row for c in pixel) for row in rows)
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
