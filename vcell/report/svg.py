"""Pictures as inline SVG: lines, points, bars, histograms, heat maps. Standard library only.

Each function returns one ``<svg>`` element for `vcell.report.Page.figure`. Values that are not
finite are left out; if none is left, the picture says so. A tooltip names the element under the
pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vcell import console
from vcell.report import axes, frame, pixels
from vcell.report.axes import Axis, number
from vcell.report.frame import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from vcell.report.grid import named_heat_map
from vcell.report.intervals import intervals
from vcell.report.pixels import heat_map

__all__ = [
    "bars", "gauge", "heat_map", "histogram", "intervals", "line", "named_heat_map", "scatter",
    "strip",
]  # fmt: skip

Points = Sequence[tuple[float, float]]
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
_NAMED = 600  # points with a tooltip; each is an element of its own
_ROW = 18  # pixels of a bar
_COUNTED = 40  # counts up to this have a bin each


def line(
    series: Series,
    *,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    diagonal: bool | tuple[float, float] = False,
) -> str:
    """Draw one line per series of (xs, ys); a series of one point is a dot.

    For `diagonal` see `scatter`.
    """
    return _plot(series, x, y, _line, log_x=log_x, diagonal=diagonal)


def scatter(  # noqa: PLR0913 - all but the first by keyword
    series: Series,
    *,
    x: str = "",
    y: str = "",
    diagonal: bool | tuple[float, float] = False,
    equal: bool = False,
    log_x: bool = False,
    names: Mapping[str, Sequence[str]] | None = None,
    band: tuple[float, float] | None = None,
    arrow: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> str:
    """Draw one cloud of points per series of (xs, ys).

    Parameters
    ----------
    diagonal
        x and y are one quantity: both axes are the same, and the line y = x is drawn. Two numbers
        are included in the axes in any case, such as 0 and 1 for shares.
    equal
        Both axes are the same, without the line.
    names
        Names of a series' points, for tooltips; only the outermost points get one.
    band
        A range of x to shade behind the points.
    arrow
        Start and end of an arrow over the points.
    """
    marks = _Marks(band, arrow)
    return _plot(
        series, x, y, _cloud,
        diagonal=diagonal, equal=equal, log_x=log_x, names=names, marks=marks,
    )  # fmt: skip


def bars(values: Mapping[str, float], *, x: str = "", reference: float | None = None) -> str:
    """Draw one horizontal bar per name, in the order given; `reference` is a dashed line.

    The number is at the right end of the row; one that is not finite is "no value".
    """
    if not values:
        return frame.empty("nothing to show")
    label = min(140.0, 12 + max(frame.width_of(name) for name in values))
    finite = [value for value in values.values() if math.isfinite(value)]
    marks = finite if reference is None else [*finite, reference]
    whole = all(value == int(value) for value in marks)
    axis = axes.linear(marks, label, WIDTH - 50, zero=True, whole=whole)
    bottom = _ROW * len(values) + TOP
    parts = [frame.x_axis(axis, TOP, bottom, x)]
    zero = axis.at(0.0)
    for row, (name, value) in enumerate(values.items()):
        top = TOP + _ROW * row
        title = frame.hover(f"{name}: {number(value)}")
        parts.append(f"<g>{title}{frame.row_name(name, label, top + 12)}")
        if math.isfinite(value):
            left, right = sorted((zero, axis.at(value)))
            parts.append(
                f'<rect class="f0" x="{left:.1f}" y="{top + 1}" width="{right - left:.1f}" '
                f'height="14"/>'
            )
        # in a column of their own, clear of the reference line
        shown = number(value) if math.isfinite(value) else "no value"
        parts.append(f"{frame.text(WIDTH - 2, top + 12, shown, 'end')}</g>")
    if reference is not None:  # with a rim, so that it is seen over bars too
        path = f'd="M{axis.at(reference):.1f} {TOP}V{bottom}"'
        parts.append(f'<path class="rim" {path}/><path class="dash ink" {path}/>')
    return frame.drawing(parts, bottom + BOTTOM, f"{len(values)} bars of {x or 'values'}")


def stacked(values: Mapping[str, Sequence[float]], parts: Sequence[str], *, x: str = "") -> str:
    """Draw one horizontal bar per name, made of one piece for each of `parts`, from the left.

    The total is written behind the bar; each piece shows its value in a tooltip.
    """
    if not values:
        return frame.empty("nothing to show")
    label = min(140.0, 12 + max(frame.width_of(name) for name in values))
    axis = axes.linear([sum(v) for v in values.values()], label, WIDTH - 46, zero=True)
    pieces, room = frame.legend(parts)
    top = TOP + room
    bottom = _ROW * len(values) + top
    pieces.append(frame.x_axis(axis, top, bottom, x))
    for row, (name, lengths) in enumerate(values.items()):
        y = top + _ROW * row
        pieces.append(frame.row_name(name, label, y + 12))
        reached = 0.0
        for i, (part, length) in enumerate(zip(parts, lengths, strict=True)):
            left, right = axis.at(reached), axis.at(reached + length)
            reached += length
            title = frame.hover(f"{name}, {part}: {number(length)}")
            pieces.append(
                f'<rect class="f{i % frame.COLOURS}" x="{left:.1f}" y="{y + 1:.1f}" '
                f'width="{right - left:.1f}" height="14">{title}</rect>'
            )
        pieces.append(frame.text(axis.at(reached) + 4, y + 12, number(reached)))
    return frame.drawing(pieces, bottom + BOTTOM, f"{len(values)} stacked bars of {x or 'values'}")


def strip(
    groups: Mapping[str, Mapping[str, float]], *, x: str = "", reference: float | None = None
) -> str:
    """Draw one row of named points per group, with the group's mean as a tick."""
    finite = [v for group in groups.values() for v in group.values() if math.isfinite(v)]
    if not finite:
        return frame.empty("nothing to show: no value is finite")
    label = min(140.0, 12 + max(frame.width_of(name) for name in groups))
    marks = finite if reference is None else [*finite, reference]
    axis = axes.linear(marks, label, WIDTH - RIGHT)
    tall = 34
    bottom = tall * len(groups) + TOP
    parts = [frame.x_axis(axis, TOP, bottom, x)]
    if reference is not None:
        parts.append(f'<path class="dash" d="M{axis.at(reference):.1f} {TOP}V{bottom}"/>')
    for row, (name, group) in enumerate(groups.items()):
        middle = TOP + tall * row + tall / 2
        parts.append(frame.row_name(name, label, middle + 4))
        shown = {k: v for k, v in group.items() if math.isfinite(v)}
        for i, (point, value) in enumerate(shown.items()):
            up = middle + (i * 7 % 15) - 7  # spread, so that equal values do not overlap
            parts.append(_dot(axis.at(value), up, row % COLOURS, f"{point}: {number(value)}"))
        if shown:
            mean = sum(shown.values()) / len(shown)
            at = axis.at(mean)
            parts.append(
                f'<path class="line ink" d="M{at:.1f} {middle - 13:.1f}v26">'
                f"{frame.hover(f'{name}, mean of {len(shown)}: {number(mean)}')}</path>"
            )
    return frame.drawing(parts, bottom + BOTTOM, f"{x or 'values'} of {', '.join(groups)}")


def histogram(values: Iterable[float], *, x: str = "", y: str = "", log: bool = False) -> str:
    """Draw how values are distributed; on a log scale, zeros are left out and counted.

    Few whole numbers get one bar each (other bins would leave gaps), and no log scale.
    """
    found = [float(v) for v in values if math.isfinite(v)]
    positive = [v for v in found if v > 0] if log else found
    if not positive:
        return frame.empty("nothing to show: no value is finite" + (" and above 0" if log else ""))
    log = log and not (max(positive) <= _COUNTED and all(v == int(v) for v in positive))
    edges = _log_edges(positive) if log else _edges(positive)
    counts = [0] * (len(edges) - 1)
    scale = (len(edges) - 1) / (_place(edges[-1], log=log) - _place(edges[0], log=log))
    for value in positive:
        i = int((_place(value, log=log) - _place(edges[0], log=log)) * scale)
        counts[min(max(i, 0), len(counts) - 1)] += 1
    ends = edges[0], edges[-1]
    if log:
        across = axes.logarithmic(ends, LEFT, WIDTH - RIGHT)
    else:  # bins of whole numbers begin between two of them
        across = axes.linear(ends, LEFT, WIDTH - RIGHT, whole=edges[0] % 1 == 0.5)
    up = axes.linear(counts, HEIGHT - BOTTOM, TOP, zero=True, spacing=45, whole=True)
    parts = [frame.x_axis(across, TOP, HEIGHT - BOTTOM, x), frame.y_axis(up, y)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, right = across.at(low), across.at(high)
        top = up.at(count)
        parts.append(
            f'<rect class="f0" x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left - 0.6, 0.4):.1f}" height="{HEIGHT - BOTTOM - top:.1f}">'
            f"{frame.hover(f'{number(low)} to {number(high)}: {count:,}')}</rect>"
        )
    if len(positive) < len(found):
        parts.append(
            frame.text(
                WIDTH - RIGHT, TOP + 10, f"{len(found) - len(positive):,} at 0 left out", "end"
            )
        )
    of = console.count(len(positive), "value")
    return frame.drawing(parts, HEIGHT, f"histogram of {x or 'values'}, {of}")


def density(counts: Sequence[Sequence[float]], across: Axis, up: Axis, *, x: str, y: str) -> str:
    """Draw a two-dimensional histogram behind its axes; rows of `counts` go upwards."""
    picture = pixels.density(list(reversed(counts)))
    size = (across.end - across.start, up.start - up.end)
    parts = [
        frame.x_axis(across, TOP, HEIGHT - BOTTOM, x),
        frame.y_axis(up, y),
        pixels.image(across.start, up.end, size, picture),
    ]
    return frame.drawing(parts, HEIGHT, f"{y} against {x}")


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


# -- two axes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cloud:
    """Points of one series in values and pixels; the series' name, and those of points, if any."""

    name: str
    values: Points
    at: Points
    names: Sequence[str]


@dataclass(frozen=True)
class _Marks:
    """Marks behind and over the points of a scatter plot."""

    band: tuple[float, float] | None = None
    arrow: tuple[tuple[float, float], tuple[float, float]] | None = None

    def behind(self, across: Axis, up: Axis) -> str:
        """Shade the band, over the full height."""
        if self.band is None:
            return ""
        left, right = (min(max(across.at(v), across.start), across.end) for v in self.band)
        title = frame.hover(f"{number(self.band[0])} to {number(self.band[1])}")
        return (
            f'<rect class="f7" fill-opacity="0.18" x="{left:.1f}" y="{up.end:.1f}" '
            f'width="{max(right - left, 1):.1f}" height="{up.start - up.end:.1f}">{title}</rect>'
        )

    def over(self, across: Axis, up: Axis) -> str:
        """Draw the arrow with its head."""
        if self.arrow is None:
            return ""
        (x0, y0), (x1, y1) = ((across.at(a), up.at(b)) for a, b in self.arrow)
        length = math.hypot(x1 - x0, y1 - y0)
        if length < 1:
            return ""
        u, v = (x1 - x0) / length, (y1 - y0) / length
        sides = [(x1 - 9 * u + 4.5 * s * v, y1 - 9 * v - 4.5 * s * u) for s in (1, -1)]
        head = "".join(f"L{x:.1f} {y:.1f}" for x, y in sides)
        return (
            f'<path class="line ink" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
            f'<path class="ink" fill="currentColor" d="M{x1:.1f} {y1:.1f}{head}Z"/>'
        )


def _plot(  # noqa: PLR0913 - those of scatter
    series: Series,
    x: str,
    y: str,
    draw: Callable[[_Cloud, int], str],
    *,
    diagonal: bool | tuple[float, float] = False,
    equal: bool = False,
    log_x: bool = False,
    names: Mapping[str, Sequence[str]] | None = None,
    marks: _Marks | None = None,
) -> str:
    """Draw axes, a legend if there are several series, and each series with `draw`."""
    shown = {
        name: _finite(*points, (names or {}).get(name, ()), positive=log_x)
        for name, points in series.items()
    }
    xs = [a for points, _ in shown.values() for a, _ in points]
    ys = [b for points, _ in shown.values() for _, b in points]
    if not xs:
        return frame.empty("nothing to show: no value is finite")
    marks = marks or _Marks()
    above, room = frame.legend([name for name in shown if name] if len(shown) > 1 else [])
    square = equal or bool(diagonal)
    side = WIDTH - LEFT - RIGHT if square else HEIGHT - TOP - BOTTOM
    top, bottom = TOP + room, TOP + room + side
    if square:
        xs = ys = [*xs, *ys, *(diagonal if isinstance(diagonal, tuple) else ())]
    make = axes.logarithmic if log_x else axes.linear
    across = make(xs, LEFT, WIDTH - RIGHT)
    up = axes.linear(ys, bottom, top, spacing=60 if square else 45)
    if square:  # the same ticks on both axes
        up = Axis(across.low, across.high, bottom, top, across.ticks)
    parts = [*above, frame.x_axis(across, top, bottom, x), frame.y_axis(up, y)]
    if diagonal:
        parts.append(f'<path class="dash" d="M{LEFT} {bottom:.1f}L{WIDTH - RIGHT} {top:.1f}"/>')
    parts.append(marks.behind(across, up))
    for i, (name, (points, called)) in enumerate(shown.items()):
        at = list(
            zip(
                across.all_at([a for a, _ in points]), up.all_at([b for _, b in points]),
                strict=True,
            )
        )  # fmt: skip
        parts.append(draw(_Cloud(name, points, at, called), i % COLOURS))
    parts.append(marks.over(across, up))
    return frame.drawing(parts, bottom + BOTTOM, f"{y or 'values'} against {x or 'numbers'}")


def _finite(
    xs: Iterable[float], ys: Iterable[float], names: Sequence[str], *, positive: bool
) -> tuple[list[tuple[float, float]], list[str]]:
    pairs = [(float(a), float(b)) for a, b in zip(xs, ys, strict=True)]
    keep = [
        i
        for i, (a, b) in enumerate(pairs)
        if math.isfinite(a) and math.isfinite(b) and (a > 0 or not positive)
    ]
    return [pairs[i] for i in keep], [str(names[i]) for i in keep] if len(names) else []


def _line(cloud: _Cloud, colour: int) -> str:
    if len(cloud.at) == 1:
        (a, b), (x, y) = cloud.at[0], cloud.values[0]
        return _dot(a, b, colour, f"{number(x)}, {number(y)}")
    if not cloud.at:
        return ""
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in cloud.at)
    return f'<path class="line s{colour}" d="M{path}"/>'


def _cloud(cloud: _Cloud, colour: int) -> str:
    """Draw points; the outermost are elements with a name, the rest one path, named as a series."""
    order = list(range(len(cloud.at)))
    if cloud.names and len(cloud.at) > _NAMED:
        middle = [sum(place) / len(cloud.at) for place in zip(*cloud.at, strict=True)]
        order = sorted(order, key=lambda i: -math.dist(cloud.at[i], middle))
    named = order[:_NAMED] if cloud.names else []
    apart = set(named)
    crowd = " crowd" if named else ""  # one path does not grow darker where its points overlap
    rest = "".join(f"M{a:.1f} {b:.1f}h0" for i, (a, b) in enumerate(cloud.at) if i not in apart)
    told = frame.hover(cloud.name) if cloud.name else ""
    parts = [f'<path class="dots{crowd} s{colour}" d="{rest}">{told}</path>'] if rest else []
    for i in named:
        (a, b), (x, y) = cloud.at[i], cloud.values[i]
        parts.append(_dot(a, b, colour, f"{cloud.names[i]}: {number(x)}, {number(y)}"))
    return "".join(parts)


def _dot(x: float, y: float, colour: int, words: str) -> str:
    return f'<path class="dots s{colour}" d="M{x:.1f} {y:.1f}h0">{frame.hover(words)}</path>'


# -- bins --------------------------------------------------------------------------------------


def _place(value: float, *, log: bool) -> float:
    return math.log10(value) if log else value


def _edges(values: Sequence[float], most: int = 40) -> list[float]:
    """Return edges of equal bins from a round number on; each whole number has its own bin."""
    low, high = min(values), max(values)
    if high <= low:
        return [low - 0.5, high + 0.5]
    whole = all(value == int(value) for value in values)
    step = axes.round_step((high - low) / most)
    if whole:
        step = max(1.0, step)
        first = math.floor(low / step) * step - 0.5
        return [first + i * step for i in range(math.floor((high - first) / step) + 2)]
    first = math.floor(low / step)
    return [i * step for i in range(first, math.ceil(high / step + 1e-9) + 1)]


def _log_edges(values: Sequence[float], most: int = 40) -> list[float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = min(most, max(1, len(values)))
    return [10 ** (low + (high - low) * i / bins) for i in range(bins + 1)]
