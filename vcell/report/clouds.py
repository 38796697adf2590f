"""Pictures with two axes: lines, clouds of points, volcanoes. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vcell.report import axes, frame, outermost
from vcell.report.axes import Axis, number
from vcell.report.frame import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from vcell.report.outermost import Cloud

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
Names = Mapping[str, Sequence[str]]
_NAMED = 600  # points with a tooltip; each is an element of its own


@dataclass(frozen=True)
class _Look:
    """What a picture has besides its points, and how its axes are."""

    x: str = ""
    y: str = ""
    log_x: bool = False
    diagonal: bool | tuple[float, float] = False
    equal: bool = False
    held: bool = False  # whether the axes end before outliers, which lie on the frame
    zero: bool = False  # whether both axes include 0, and x = 0 is a line
    band: tuple[float, float] | None = None
    level: float | None = None
    arrow: tuple[tuple[float, float], tuple[float, float]] | None = None
    labels: int = 0  # outermost points with their name beside them


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
    return _plot(series, _line, _Look(x, y, log_x=log_x, diagonal=diagonal))


def scatter(  # noqa: PLR0913 - all but the first by keyword
    series: Series,
    *,
    x: str = "",
    y: str = "",
    diagonal: bool | tuple[float, float] = False,
    equal: bool = False,
    log_x: bool = False,
    names: Names | None = None,
    labels: int = 0,
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
    log_x
        Whether x is logarithmic where its values differ more than threefold.
    names
        Names of a series' points, for tooltips; only the outermost points get one.
    labels
        How many of the outermost points have their name beside them too.
    arrow
        Start and end of an arrow over the points.
    """
    look = _Look(
        x, y, diagonal=diagonal, equal=equal, log_x=log_x, labels=labels, arrow=arrow
    )  # fmt: skip
    return _plot(series, _cloud, look, names)


def volcano(
    series: Series,
    *,
    names: Names,
    x: str = "log2 fold change",
    y: str = "-log10 p",
    band: tuple[float, float] | None = None,
    level: float | None = None,
) -> str:
    """Draw changes (x) against their significance (y), with the names of the outermost.

    A few genes far out, such as the target itself, lie on the frame as triangles, so that the
    others are seen; their names and tooltips have the values.

    Parameters
    ----------
    band
        A range of x to shade behind the points.
    level
        A height to mark with a dashed line, such as that of the threshold.
    """
    if not any(v for _, ys in series.values() for v in ys if math.isfinite(v)):
        return frame.empty("no gene changes")
    look = _Look(x, y, held=True, zero=True, band=band, level=level, labels=6)
    return _plot(series, _cloud, look, names)


def _plot(
    series: Series, draw: Callable[[Cloud, int], str], look: _Look, names: Names | None = None
) -> str:
    """Draw axes, a legend if there are several series, and each series with `draw`."""
    clouds = [
        _finite(name, *points, (names or {}).get(name, ()), positive=look.log_x)
        for name, points in series.items()
    ]
    if not any(cloud.values for cloud in clouds):
        return frame.empty("nothing to show: no value is finite")
    above, room = frame.legend([c.name for c in clouds if c.name] if len(clouds) > 1 else [])
    across, up = _axes(clouds, look, room)
    top, bottom = up.end, up.start
    parts = [*above, frame.x_axis(across, top, bottom, look.x), frame.y_axis(up, look.y)]
    parts += _behind(look, across, up)
    placed = [cloud.placed(across, up) for cloud in clouds]
    parts += [draw(cloud, i % COLOURS) for i, cloud in enumerate(placed)]
    sides = (across.start, across.end)
    beyond = outermost.beyond(placed, sides, (top, bottom), TOP + room)
    parts += [point.drawn() for point in beyond]
    level = None if look.level is None else up.at(look.level)
    parts += outermost.named(placed, beyond, look.labels, sides, (top, bottom), level)
    parts.append(_arrow(look, across, up))
    foot = bottom + BOTTOM
    if beyond:
        foot += 14
        parts.append(frame.text(WIDTH - RIGHT, foot - 5, "▲ beyond the frame", "end"))
    what = f"{look.y or 'values'} against {look.x or 'numbers'}"
    return frame.drawing(parts, foot, what)


def _axes(clouds: Sequence[Cloud], look: _Look, room: float) -> tuple[Axis, Axis]:
    """Fit the axes; `room` is for the legend above them."""
    xs = [a for cloud in clouds for a, _ in cloud.values]
    ys = [b for cloud in clouds for _, b in cloud.values]
    square = look.equal or bool(look.diagonal)
    top = TOP + room
    bottom = top + (WIDTH - LEFT - RIGHT if square else HEIGHT - TOP - BOTTOM)
    if look.held:
        wide, tall = axes.reach(xs), axes.reach(ys)
        above = outermost.strip(clouds, wide, tall)
        top, bottom = top + above, bottom + above
        xs, ys = [v for v in xs if abs(v) <= wide], [v for v in ys if abs(v) <= tall]
    if square:
        xs = ys = [*xs, *ys, *(look.diagonal if isinstance(look.diagonal, tuple) else ())]
    if look.log_x:
        across = axes.by_size(xs, LEFT, WIDTH - RIGHT)
    else:
        across = axes.linear(xs, LEFT, WIDTH - RIGHT, zero=look.zero)
    if square:  # the same ticks on both axes
        return across, replace(across, start=bottom, end=top)
    return across, axes.linear(ys, bottom, top, spacing=45, zero=look.zero)


def _behind(look: _Look, across: Axis, up: Axis) -> list[str]:
    """Draw what lies behind the points: the band, the zero line, the level, the diagonal."""
    parts = []
    if look.band is not None:
        left, right = (min(max(across.at(v), across.start), across.end) for v in look.band)
        title = frame.hover(f"{number(look.band[0])} to {number(look.band[1])}")
        parts.append(
            f'<rect class="f7" fill-opacity="0.18" x="{left:.1f}" y="{up.end:.1f}" '
            f'width="{max(right - left, 1):.1f}" height="{up.start - up.end:.1f}">{title}</rect>'
        )
    if look.zero:
        parts.append(f'<path class="axis" d="M{across.at(0.0):.1f} {up.end:.1f}V{up.start:.1f}"/>')
    if look.level is not None and up.low <= look.level <= up.high:
        at = up.at(look.level)
        parts.append(f'<path class="dash" d="M{across.start:.1f} {at:.1f}H{across.end:.1f}"/>')
    if look.diagonal:
        ends = f"M{LEFT} {up.start:.1f}L{WIDTH - RIGHT} {up.end:.1f}"
        parts.append(f'<path class="dash" d="{ends}"/>')
    return parts


def _arrow(look: _Look, across: Axis, up: Axis) -> str:
    """Draw the arrow with its head."""
    if look.arrow is None:
        return ""
    (x0, y0), (x1, y1) = ((across.at(a), up.at(b)) for a, b in look.arrow)
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


def _finite(
    name: str,
    xs: Iterable[float],
    ys: Iterable[float],
    names: Sequence[str],
    *,
    positive: bool,
) -> Cloud:
    pairs = [(float(a), float(b)) for a, b in zip(xs, ys, strict=True)]
    keep = [
        i
        for i, (a, b) in enumerate(pairs)
        if math.isfinite(a) and math.isfinite(b) and (a > 0 or not positive)
    ]
    called = [str(names[i]) for i in keep] if len(names) else []
    return Cloud(name, [pairs[i] for i in keep], called)


def _line(cloud: Cloud, colour: int) -> str:
    if len(cloud.at) == 1:
        (a, b), (x, y) = cloud.at[0], cloud.values[0]
        return frame.dot(a, b, colour, f"{number(x)}, {number(y)}")
    if not cloud.at:
        return ""
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in cloud.at)
    return f'<path class="line s{colour}" d="M{path}"/>'


def _cloud(cloud: Cloud, colour: int) -> str:
    """Draw points; the outermost are elements with a name, the rest one path, named as a series."""
    order = list(cloud.within)
    if cloud.names and len(order) > _NAMED:
        middle = [sum(place) / len(cloud.at) for place in zip(*cloud.at, strict=True)]
        order = sorted(order, key=lambda i: -math.dist(cloud.at[i], middle))
    named = order[:_NAMED] if cloud.names else []
    apart = set(named)
    crowd = " crowd" if named else ""  # one path does not grow darker where its points overlap
    rest = "".join("M{:.1f} {:.1f}h0".format(*cloud.at[i]) for i in cloud.within if i not in apart)
    told = frame.hover(cloud.name) if cloud.name else ""
    parts = [f'<path class="dots{crowd} s{colour}" d="{rest}">{told}</path>'] if rest else []
    parts += [frame.dot(*cloud.at[i], colour, cloud.told(i)) for i in named]
    return "".join(parts)
