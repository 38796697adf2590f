"""Curves: a static figure, its numbers, and a table of its data.

A series of any length becomes at most `buckets` points, each with the mean, minimum and maximum of
its values: a spike widens the band of its bucket and does not flatten the axis. The page's script
(`curves.js`) adds zoom, read-out, log scale and smoothing; without it, the static figure remains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from vcell.report import axes, frame
from vcell.report.frame import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from vcell.report.table import Table, prose

_STILL = 90  # points of a curve in the static figure, one per three pixels


@dataclass(frozen=True)
class Curve:
    """One series in buckets: position, mean, minimum and maximum of each."""

    name: str
    x: list[float]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]

    @classmethod
    def of(cls, name: str, x: Sequence[float], y: Sequence[float], buckets: int = 400) -> Curve:
        """Divide a series into buckets of equal width; values that are not finite are left out."""
        import numpy as np

        at, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
        finite = np.isfinite(at) & np.isfinite(values)
        at, values = at[finite], values[finite]
        if len(at) <= buckets:
            ys: list[float | None] = values.tolist()
            return cls(name, at.tolist(), ys, list(ys), list(ys))
        first, last = float(at[0]), float(at.max())
        scale = buckets / ((last - first) or 1.0)
        bucket = np.clip(((at - first) * scale).astype(np.int64), 0, buckets - 1)
        order = np.argsort(bucket, kind="stable")
        kept, starts = np.unique(bucket[order], return_index=True)
        values = values[order]
        counts = np.diff(np.append(starts, len(values)))
        return cls(
            name,
            (first + (kept + 0.5) / scale).tolist(),
            (np.add.reduceat(values, starts) / counts).tolist(),
            np.minimum.reduceat(values, starts).tolist(),
            np.maximum.reduceat(values, starts).tolist(),
        )

    def thinned(self, most: int) -> Curve:
        """Merge neighbouring points until there are at most `most`."""
        if len(self.x) <= most:
            return self
        size = -(-len(self.x) // most)
        groups = [slice(i, i + size) for i in range(0, len(self.x), size)]
        return Curve(
            self.name,
            [_average(self.x[g]) or 0.0 for g in groups],
            [_average(self.mean[g]) for g in groups],
            [_least(self.low[g]) for g in groups],
            [_greatest(self.high[g]) for g in groups],
        )


@dataclass(frozen=True)
class Chart:
    """One figure: curves over one quantity, reference lines, and a sentence that explains it."""

    title: str
    curves: Sequence[Curve]
    x: str = "step"
    y: str = ""
    reading: str = ""
    marks: dict[str, float] = field(default_factory=dict)  # name -> value of a dashed line

    def html(self) -> str:
        """Return the figure: picture, numbers, sentence, and a collapsed table."""
        curves = [curve for curve in self.curves if curve.x]
        title = f"<h3>{escape(self.title)}</h3>"
        words = f"<figcaption>{prose(self.reading)}</figcaption>" if self.reading else ""
        if not curves:
            return f"<figure>{title}{frame.empty('nothing was recorded')}{words}</figure>"
        legend = _names(curves)
        return (
            f'<figure class="curve">{title}{legend}{self.svg()}'
            f'<script type="application/json">{self._numbers(curves)}</script>{words}'
            f"<details><summary>table</summary>{self.table().html()}</details></figure>"
        )

    def svg(self) -> str:
        """Return the static figure."""
        curves = [curve.thinned(_STILL) for curve in self.curves if curve.x]
        if not curves:
            return frame.empty("nothing was recorded")
        bottom = HEIGHT - BOTTOM
        ends = {x for c in curves for x in (c.x[0], c.x[-1])}
        begin = {0.0} if len(ends) == 1 and min(ends) > 0 else set()  # a single step is a label
        across = axes.linear(ends | begin, LEFT, WIDTH - RIGHT)
        values = [v for c in curves for v in _inner(c)]
        up = axes.linear([*values, *self.marks.values()], bottom, TOP, spacing=45)
        parts = [frame.x_axis(across, TOP, bottom, self.x), frame.y_axis(up, self.y)]
        for i, curve in enumerate(curves):
            at = [
                tuple(min(max(up.at(v), TOP), bottom) for v in (mean, low, high))
                for mean, low, high in zip(curve.mean, curve.low, curve.high, strict=True)
                if mean is not None and low is not None and high is not None
            ]
            xs = [across.at(x) for x in curve.x]
            parts.append(_band(xs, at, i % COLOURS))
            path = "L".join(f"{x:.1f} {y:.1f}" for x, (y, _, _) in zip(xs, at, strict=True))
            kind = "line" if len(xs) > 1 else "dots big"
            parts.append(
                f'<path class="{kind} s{i % COLOURS}" d="M{path}{"" if len(xs) > 1 else "h0"}"/>'
            )
        for value in self.marks.values():
            y = up.at(value)
            parts.append(f'<path class="dash" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        for name, y in _apart({n: up.at(v) - 4 for n, v in self.marks.items()}, bottom - 4):
            parts.append(frame.text(WIDTH - RIGHT, y, name, "end"))
        return frame.drawing(parts, HEIGHT, f"{self.title} by {self.x}")

    def _numbers(self, curves: Sequence[Curve]) -> str:
        series = [
            {
                "name": c.name,
                "x": [_short(x, 7) for x in c.x],
                "mean": list(map(_short, c.mean)),
                # for single values the band equals the curve
                "low": [] if c.low == c.mean else list(map(_short, c.low)),
                "high": [] if c.high == c.mean else list(map(_short, c.high)),
            }
            for c in curves
        ]
        marks = [{"name": name, "value": _short(value)} for name, value in self.marks.items()]
        shares = axes.are_shares(v for c in curves for v in c.mean if v is not None)
        whole = {"x": self.x, "y": self.y, "series": series, "marks": marks, "shares": shares}
        # a "<" in a name could end the element
        return json.dumps(whole, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

    def table(self) -> Table:
        """Return the table behind the picture: where each curve began, went and ended."""
        rows = []
        for curve in self.curves:
            if curve.x:
                ends = (curve.mean[0], _least(curve.low), _greatest(curve.high), curve.mean[-1])
                rows.append((curve.name or self.title, len(curve.x), *ends))
        return Table.of(("", "points", "first", "least", "greatest", "last"), rows)


def _names(curves: Sequence[Curve]) -> str:
    """Return a legend in HTML if there are several curves."""
    if len(curves) < 2:
        return ""
    entries = "".join(
        f'<span class="key"><svg width="12" height="12" aria-hidden="true">'
        f'<path class="dots big s{i % COLOURS}" d="M6 6h0"/></svg>{escape(c.name)}</span>'
        for i, c in enumerate(curves)
    )
    return f'<div class="keys">{entries}</div>'


def _apart(words: dict[str, float], bottom: float) -> list[tuple[str, float]]:
    """Move labels of one margin apart, so that none overlaps another or leaves the frame."""
    order, last = sorted(words, key=lambda name: words[name]), TOP + 10.0 - 13
    places = {}
    for name in order:
        last = places[name] = max(words[name], last + 13)
    for name in reversed(order):
        places[name] = min(places[name], bottom)
        bottom = places[name] - 13
    return list(places.items())


def _inner(curve: Curve) -> list[float]:
    """Return a curve's means without the farthest 2 % on either side."""
    means = sorted(v for v in curve.mean if v is not None)
    cut = len(means) // 50
    return means[cut : len(means) - cut]


def _band(xs: list[float], at: list[tuple[float, ...]], colour: int) -> str:
    if all(low == high for _, low, high in at):
        return ""
    up = [f"{x:.1f} {high:.1f}" for x, (_, _, high) in zip(xs, at, strict=True)]
    down = [f"{x:.1f} {low:.1f}" for x, (_, low, _) in zip(xs, at, strict=True)]
    return f'<path class="band f{colour}" d="M{"L".join(up + down[::-1])}Z"/>'


def _average(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _least(values: Sequence[float | None]) -> float | None:
    return min((v for v in values if v is not None), default=None)


def _greatest(values: Sequence[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _short(value: float | None, digits: int = 4) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
