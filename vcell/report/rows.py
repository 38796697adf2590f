"""Pictures with a row for each name: bars, strips of points. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vcell.report import axes, frame
from vcell.report.axes import number
from vcell.report.frame import BOTTOM, COLOURS, RIGHT, TOP, WIDTH

_ROW = 18  # pixels of a bar


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
    shown = dict(zip(values, axes.column(list(values.values())), strict=True))
    room = max(50.0, 12 + max(map(frame.width_of, shown.values())))
    axis = axes.linear(marks, label, WIDTH - room, zero=True, whole=whole)
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
        parts.append(f"{frame.text(WIDTH - 2, top + 12, shown[name], 'end')}</g>")
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
            parts.append(frame.dot(axis.at(value), up, row % COLOURS, f"{point}: {number(value)}"))
        if shown:
            mean = sum(shown.values()) / len(shown)
            at = axis.at(mean)
            parts.append(
                f'<path class="line ink" d="M{at:.1f} {middle - 13:.1f}v26">'
                f"{frame.hover(f'{name}, mean of {len(shown)}: {number(mean)}')}</path>"
            )
    return frame.drawing(parts, bottom + BOTTOM, f"{x or 'values'} of {', '.join(groups)}")
