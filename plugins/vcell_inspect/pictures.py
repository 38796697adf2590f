"""Small SVG pictures: a histogram, a density of points, bars. Numbers in, markup out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 360, 200
LEFT, BOTTOM, TOP = 46, 24, 8
BINS = 40


def histogram(values: NDArray[np.float64], *, log: bool) -> str:
    """Draw how values are distributed; zeros are left out on a log scale."""
    values = np.asarray(values, np.float64)
    values = np.log10(values[values > 0]) if log else values
    if not len(values):
        return _frame("", "nothing to show", "", 0)
    counts, edges = np.histogram(values, BINS)
    high = max(int(counts.max()), 1)
    wide = (WIDTH - LEFT - 8) / BINS
    marks = []
    for i, count in enumerate(counts):
        tall = (HEIGHT - TOP - BOTTOM) * count / high
        marks.append(
            f'<rect class="mark" x="{LEFT + i * wide:.1f}" y="{HEIGHT - BOTTOM - tall:.1f}" '
            f'width="{max(wide - 0.6, 0.4):.1f}" height="{tall:.1f}"/>'
        )
    low, top = (10**e if log else e for e in (edges[0], edges[-1]))
    return _frame("".join(marks), _number(low), _number(top), high)


def scatter(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Draw two values of each cell against each other as a density of squares, both logged."""
    keep = (x > 0) & (y > 0)
    if not keep.any():
        return _frame("", "nothing to show", "", 0)
    lx, ly = np.log10(x[keep]), np.log10(y[keep])
    counts, xs, ys = np.histogram2d(lx, ly, BINS)
    wide, tall = (WIDTH - LEFT - 8) / BINS, (HEIGHT - TOP - BOTTOM) / BINS
    strength = np.log1p(counts) / np.log1p(counts.max())
    marks = [
        f'<rect class="mark" x="{LEFT + i * wide:.1f}" y="{HEIGHT - BOTTOM - (j + 1) * tall:.1f}" '
        f'width="{wide:.2f}" height="{tall:.2f}" opacity="{0.15 + 0.85 * strength[i, j]:.2f}"/>'
        for i, j in zip(*np.nonzero(counts), strict=True)
    ]
    low, top = 10 ** xs[0], 10 ** xs[-1]
    return _frame("".join(marks), _number(low), _number(top), 10 ** ys[-1], 10 ** ys[0])


def bars(pairs: Sequence[tuple[str, float]]) -> str:
    """Draw labelled values as lying bars."""
    high = max((value for _, value in pairs), default=0) or 1
    step, label = 17, 130
    lines = []
    for i, (name, value) in enumerate(pairs):
        y = TOP + i * step
        wide = (WIDTH - label - 56) * value / high
        short = name if len(name) <= 20 else name[:19] + "…"
        lines.append(
            f'<text x="{label - 6}" y="{y + 11}" text-anchor="end">{html.escape(short)}</text>'
            f'<rect class="mark" x="{label}" y="{y + 2}" width="{max(wide, 1):.1f}" height="11"/>'
            f'<text x="{label + wide + 5:.1f}" y="{y + 11}">{_number(value)}</text>'
        )
    height = TOP * 2 + step * len(pairs)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(lines)}</svg>'


def _frame(marks: str, left: str, right: str, high: float, low: float = 0) -> str:
    """Put marks between axes with the ends labelled."""
    base = HEIGHT - BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{marks}'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - 8}" y2="{base}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{base}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{left}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end">{right}</text>'
        f'<text x="{LEFT - 5}" y="{TOP + 10}" text-anchor="end">{_number(high)}</text>'
        f'<text x="{LEFT - 5}" y="{base}" text-anchor="end">{_number(low)}</text></svg>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
