"""Curves drawn with braille dots, eight to a character, or in ASCII."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vcell.monitor import words

if TYPE_CHECKING:
    from vcell.monitor.lines import Line

_LARGEST = 1e300  # larger values would overflow in sums and differences
_LEFT = 8  # columns of the labels and the axis
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800


class Point(NamedTuple):
    """One point of a curve, with the lowest and highest value that it represents."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Trace:
    """A curve.

    Attributes
    ----------
    points
        By ascending x.
    colour
        Index of its colour, 0 to 6.
    mark
        Its character in ASCII, and its name at its end if there are several curves.
    band
        Whether to draw the band between its lowest and highest values.
    """

    points: Sequence[Point]
    colour: int = 0
    mark: str = "*"
    band: bool = True


@dataclass(frozen=True)
class ChartFrame:
    """Settings of a chart.

    Attributes
    ----------
    width, height
        In characters, with axes and labels.
    log
        A logarithmic y axis; values that are not above zero are left out.
    x_label
        Formats a value of the x axis.
    x_range
        Range of the x axis; by default that of the data.
    y_low
        A value that must be in the y range, such as 0 for power.
    guides
        Values of dashed horizontal lines.
    cursor
        Position of the cursor on the x axis.
    plain
        Use ASCII only.
    empty
        Message if there is nothing to draw.
    """

    width: int
    height: int
    log: bool = False
    x_label: Callable[[float], str] = words.count
    x_range: tuple[float, float] | None = None
    y_low: float | None = None
    guides: Sequence[float] = ()
    cursor: float | None = None
    plain: bool = False
    empty: str = "nothing measured yet"
    names: bool = False  # write the mark of each trace at its end
    ends: tuple[str, str] | None = None  # what to write below the ends of the x axis


@dataclass
class _Grid:
    """The dots of a chart and the curves that they belong to."""

    columns: int
    rows: int
    plain: bool
    dots: list[list[int]] = field(init=False)
    owner: list[list[int]] = field(init=False)
    band: list[list[int]] = field(init=False)
    band_owner: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.dots, self.owner, self.band, self.band_owner = (
            [[0] * self.columns for _ in range(self.rows)] for _ in range(4)
        )

    @property
    def per_cell(self) -> tuple[int, int]:
        return (1, 1) if self.plain else (2, 4)


def chart(traces: Sequence[Trace], frame: ChartFrame) -> list[Line]:
    """Draw curves with axes; return `frame.height` lines of `frame.width` columns."""
    columns, rows = frame.width - _LEFT, frame.height - 2
    if columns < 4 or rows < 2:
        return [[] for _ in range(frame.height)]
    drawn = [_visible(trace, frame) for trace in traces]
    known = [trace for trace in drawn if trace.points]
    if not known:
        return _empty(frame)
    x_range = frame.x_range or (
        min(trace.points[0].x for trace in known),
        max(trace.points[-1].x for trace in known),
    )
    if x_range[1] <= x_range[0]:
        x_range = (x_range[0] - 0.5, x_range[0] + 0.5)
    y_range = _y_range(known, frame)
    grid = _Grid(columns, rows, frame.plain)
    for trace in known:
        _draw(grid, trace, x_range, y_range, frame.log)
    return [*_plot(grid, known, frame, x_range, y_range), *_x_axis(frame, x_range)]


def _visible(trace: Trace, frame: ChartFrame) -> Trace:
    least = 0.0 if frame.log else -_LARGEST
    points = [
        p if p.low >= -_LARGEST and p.high <= _LARGEST else _bounded(p)
        for p in trace.points
        if least < p.y < _LARGEST  # neither NaN nor infinite
    ]
    if frame.x_range is not None:
        low, high = frame.x_range
        points = [point for point in points if low <= point.x <= high]
    return Trace(points, trace.colour, trace.mark, trace.band)


def _bounded(p: Point) -> Point:
    return Point(p.x, p.y, max(p.low, -_LARGEST), min(p.high, _LARGEST))


def _empty(frame: ChartFrame) -> list[Line]:
    middle = frame.height // 2
    edge = " " * (_LEFT - 1) + ("|" if frame.plain else "│")
    block: list[Line] = [[(edge, "dim")] for _ in range(frame.height - 2)]
    if 0 <= middle < len(block):
        block[middle] = [(edge, "dim"), (f"  {frame.empty}", "dim")]
    return [*block, _baseline(frame), []]


# -- scales ------------------------------------------------------------------------------------


def _y_range(traces: Sequence[Trace], frame: ChartFrame) -> tuple[float, float]:
    """Return the range of the y axis: all curves, and their bands without single spikes."""
    means = [point.y for trace in traces for point in trace.points]
    low, high = min(means), max(means)
    for trace in traces:
        if trace.band and len(trace.points) > 1:
            lows = sorted(point.low for point in trace.points)
            highs = sorted(point.high for point in trace.points)
            rank = len(lows) // 50  # a spike must not flatten the rest
            floor = lows[rank]
            low = min(low, floor if not frame.log or floor > 0 else low)
            high = max(high, highs[-1 - rank])
    shown = [*frame.guides, *([] if frame.y_low is None else [frame.y_low])]
    low, high = min([low, *shown]), max([high, *shown])
    if frame.log:
        low, high = math.log10(max(low, 1e-300)), math.log10(max(high, 1e-300))
    if high - low <= 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 0.5
        return low - pad, high + pad
    return low, high


def _ticks(low: float, high: float, rows: int, *, log: bool) -> dict[int, str]:
    """Return labels by row: a readable number of round values."""
    found: dict[int, str] = {}
    for value in _round_values(low, high, max(2, rows // 3), log=log):
        place = math.log10(value) if log else value
        row = round((high - place) / (high - low) * (rows - 1))
        if 0 <= row < rows and row not in found:
            found[row] = _label(value)
    return found


def _round_values(low: float, high: float, most: int, *, log: bool) -> list[float]:
    if log:
        first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
        if last - first >= 1:
            every = max(1, -(-(last - first + 1) // (most + 1)))
            return [10.0**power for power in range(first, last + 1, every)]
        low, high = 10**low, 10**high
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _label(value: float) -> str:
    """Format a value of the axis for the available columns."""
    if 1e5 <= abs(value) < 1e12:
        return words.count(value)
    text = ""
    for digits in (4, 3, 2, 1):
        mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
        text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
        if len(text) < _LEFT:
            break
    return text


# -- drawing -----------------------------------------------------------------------------------


def _draw(
    grid: _Grid,
    trace: Trace,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    log: bool,  # noqa: FBT001
) -> None:
    wide, tall = grid.per_cell
    across, down = grid.columns * wide, grid.rows * tall
    x_scale = (across - 1) / (x_range[1] - x_range[0])
    y_scale = (down - 1) / (y_range[1] - y_range[0])
    top = y_range[1]

    def row(value: float) -> int:
        place = math.log10(value) if log else value
        return min(down - 1, max(0, round((top - place) * y_scale)))

    sums: dict[int, list[float]] = {}
    for x, y, low, high in trace.points:
        at = int((x - x_range[0]) * x_scale + 0.5)
        if at in sums:
            found = sums[at]
            found[0] += y
            found[1] += 1
            found[2] = min(low, found[2])
            found[3] = max(high, found[3])
        else:
            sums[at] = [y, 1, low, high]
    before: tuple[int, int] | None = None
    for at, (total, n, low, high) in sums.items():
        if trace.band and high > low:
            bottom = row(low) if not log or low > 0 else down - 1
            _dots(grid.band, grid.band_owner, grid, at, (row(high), bottom), trace.colour)
        now = row(total / n)
        if before is None:
            _dots(grid.dots, grid.owner, grid, at, (now, now), trace.colour)
        else:
            _join(grid, before, (at, now), trace.colour)
        before = (at, now)


def _join(grid: _Grid, start: tuple[int, int], stop: tuple[int, int], colour: int) -> None:
    """Draw the line from one dot to a later one, without gaps."""
    (x0, y0), (x1, y1) = start, stop
    last = y0
    for x in range(x0 + 1, x1 + 1):
        y = round(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
        first = last + (y > last) - (y < last)
        _dots(grid.dots, grid.owner, grid, x, (min(first, y), max(first, y)), colour)
        last = y


def _dots(
    dots: list[list[int]],
    owner: list[list[int]],
    grid: _Grid,
    x: int,
    rows: tuple[int, int],
    colour: int,
) -> None:
    wide, tall = grid.per_cell
    column = x // wide
    bits = _DOTS[x % wide]
    for y in range(rows[0], rows[1] + 1):
        dots[y // tall][column] |= 1 if grid.plain else bits[y % tall]
        owner[y // tall][column] = colour


def _plot(
    grid: _Grid,
    traces: Sequence[Trace],
    frame: ChartFrame,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> list[Line]:
    marks = {trace.colour: trace.mark for trace in traces}
    upon = _upon(grid, traces, frame, x_range, y_range)
    labels = _ticks(*y_range, grid.rows, log=frame.log)
    edge = "|" if frame.plain else "│"
    block: list[Line] = []
    for y in range(grid.rows):
        line: Line = [(f"{labels.get(y, ''):>{_LEFT - 1}}{edge}", "dim")]
        run, style = "", ""
        for x in range(grid.columns):
            character, its = _character(grid, x, y, marks, upon)
            if its != style and run:
                line.append((run, style))
                run = ""
            run, style = run + character, its
        block.append([*line, (run, style)])
    return block


def _character(
    grid: _Grid, x: int, y: int, marks: dict[int, str], upon: dict[tuple[int, int], tuple[str, str]]
) -> tuple[str, str]:
    bits = grid.dots[y][x]
    if (x, y) in upon and (not bits or upon[x, y][1].startswith("c")):
        return upon[x, y]
    if bits:
        colour = grid.owner[y][x]
        return (marks[colour] if grid.plain else chr(_BRAILLE + bits)), f"c{colour}"
    bits = grid.band[y][x]
    if bits:
        return ("." if grid.plain else chr(_BRAILLE + bits)), f"b{grid.band_owner[y][x]}"
    return " ", ""


def _upon(
    grid: _Grid,
    traces: Sequence[Trace],
    frame: ChartFrame,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> dict[tuple[int, int], tuple[str, str]]:
    """Return characters over the curves: dashed lines, the cursor, names at the ends."""
    found: dict[tuple[int, int], tuple[str, str]] = {}

    def cell(x: float, y: float) -> tuple[int, int]:
        place = math.log10(y) if frame.log else y
        column = round((x - x_range[0]) / (x_range[1] - x_range[0]) * (grid.columns - 1))
        row = round((y_range[1] - place) / (y_range[1] - y_range[0]) * (grid.rows - 1))
        return min(grid.columns - 1, max(0, column)), min(grid.rows - 1, max(0, row))

    for value in frame.guides:
        if not frame.log or value > 0:
            row = cell(x_range[0], value)[1]
            found |= {(x, row): ("-" if frame.plain else "╌", "dim") for x in range(grid.columns)}
    if frame.cursor is not None and x_range[0] <= frame.cursor <= x_range[1]:
        column = cell(frame.cursor, 10.0 ** y_range[0] if frame.log else y_range[0])[0]
        edge = "|" if frame.plain else "│"
        found |= {(column, y): (edge, "cursor-line") for y in range(grid.rows)}
    if frame.names:
        for trace in traces:
            end = trace.points[-1]
            column, row = cell(end.x, end.y)
            while (column, row) in found and found[column, row][1].startswith("c") and row > 0:
                row -= 1
            found[column, row] = (trace.mark, f"c{trace.colour}")
    return found


def _baseline(frame: ChartFrame) -> Line:
    corner, mark = ("+", "-") if frame.plain else ("└", "─")
    return [(" " * (_LEFT - 1) + corner + mark * (frame.width - _LEFT), "dim")]


def _x_axis(frame: ChartFrame, x_range: tuple[float, float]) -> list[Line]:
    columns = frame.width - _LEFT
    low, high = frame.ends or (frame.x_label(x_range[0]), frame.x_label(x_range[1]))
    middle = "" if frame.ends else frame.x_label((x_range[0] + x_range[1]) / 2)
    text = [" "] * columns
    for label, start in (
        (low, 0),
        (middle, columns // 2 - len(middle) // 2),
        (high, columns - len(high)),
    ):
        if start >= 0 and start + len(label) <= columns:
            if label is middle and columns < len(low) + len(middle) + len(high) + 6:
                continue
            text[start : start + len(label)] = label
    return [_baseline(frame), [(" " * _LEFT + "".join(text), "dim")]]
