"""Histograms of one and two quantities. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vcell import console
from vcell.report import axes, frame, pixels
from vcell.report.axes import Axis, number
from vcell.report.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

_MOST = 40  # bins
_COUNTED = 40  # counts up to this have a bin each


def histogram(values: Iterable[float], *, x: str = "", y: str = "", log: bool = False) -> str:
    """Draw how values are distributed; on a log scale, those not above 0 are left out and counted.

    Few whole numbers get one bar each (other bins would leave gaps), and no log scale; nor do
    values that differ less than threefold.
    """
    found = [float(v) for v in values if math.isfinite(v)]
    positive = [v for v in found if v > 0] if log else found
    if not positive:
        return frame.empty("nothing to show: no value is finite" + (" and above 0" if log else ""))
    log = log and not (max(positive) <= _COUNTED and all(v == int(v) for v in positive))
    across = axes.by_size(positive, LEFT, WIDTH - RIGHT) if log else None
    if across is not None and across.log:
        edges = _log_edges(positive)
    else:
        edges = _edges(positive)
        across = _linear(edges)
    counts = [0] * (len(edges) - 1)
    scale = (len(edges) - 1) / (_place(edges[-1], across) - _place(edges[0], across))
    for value in positive:
        i = int((_place(value, across) - _place(edges[0], across)) * scale)
        counts[min(max(i, 0), len(counts) - 1)] += 1
    up = axes.linear(counts, HEIGHT - BOTTOM, TOP, zero=True, spacing=45, whole=True)
    parts = [frame.x_axis(across, TOP, HEIGHT - BOTTOM, x), frame.y_axis(up, y)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, right = across.at(low), across.at(high)
        top = up.at(count)
        told = number(low + 0.5) if _single(edges) else f"{number(low)} to {number(high)}"
        parts.append(
            f'<rect class="f0" x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left - 0.6, 0.4):.1f}" height="{HEIGHT - BOTTOM - top:.1f}">'
            f"{frame.hover(f'{told}: {count:,}')}</rect>"
        )
    if len(positive) < len(found):
        where = "at 0" if min(found) == 0 else "at 0 or below"
        left_out = f"{len(found) - len(positive):,} {where} left out"
        parts.append(frame.text(WIDTH - RIGHT, TOP + 10, left_out, "end"))
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


def _place(value: float, axis: Axis) -> float:
    return math.log10(value) if axis.log else value


def _edges(values: Sequence[float]) -> list[float]:
    """Return edges of equal bins from a round number on; few whole numbers have a bin each."""
    low, high = min(values), max(values)
    whole = all(value == int(value) for value in values)
    if high <= low:
        return [low - 0.5, high + 0.5]
    step = axes.round_step((high - low) / _MOST)
    if whole and step <= 1:
        return [low - 0.5 + i for i in range(round(high - low) + 2)]
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) + 1 if whole else math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _single(edges: Sequence[float]) -> bool:
    """Return whether each bin is around one whole number."""
    return edges[0] % 1 == 0.5 and edges[1] - edges[0] == 1


def _linear(edges: Sequence[float]) -> Axis:
    """Fit the axis to the bins; around single whole numbers it ends half a bin after the last."""
    if not _single(edges) or len(edges) == 2:
        whole = _single(edges)
        return axes.linear((edges[0], edges[-1]), LEFT, WIDTH - RIGHT, whole=whole)
    inner = axes.linear((edges[0] + 0.5, edges[-1] - 0.5), LEFT, WIDTH - RIGHT, whole=True)
    return replace(inner, low=min(inner.low, edges[0]), high=max(inner.high, edges[-1]))


def _log_edges(values: Sequence[float]) -> list[float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    bins = min(_MOST, max(1, len(values)))
    return [10 ** (low + (high - low) * i / bins) for i in range(bins + 1)]
