"""The outermost points of a picture: their names, and those that lie beyond its frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vcell.report import frame
from vcell.report.axes import Axis, number
from vcell.report.frame import COLOURS

Points = Sequence[tuple[float, float]]
Box = tuple[float, float, float, float]  # left, top, right, bottom
_SIDE, _TALL = 5.0, 12.0  # pixels: half a triangle, a line of text
_ROWS = 3  # of triangles in a corner
_NAME = 110.0  # pixels of a name


@dataclass(frozen=True)
class Cloud:
    """Points of one series in values and pixels; the series' name, and those of points, if any."""

    name: str
    values: Points
    names: Sequence[str]
    at: Points = ()
    within: Sequence[int] = field(default=())  # those inside the frame

    def placed(self, across: Axis, up: Axis) -> Cloud:
        """Give every point its place."""
        at = list(
            zip(
                across.all_at([a for a, _ in self.values]), up.all_at([b for _, b in self.values]),
                strict=True,
            )
        )  # fmt: skip
        inside = [
            i
            for i, (x, y) in enumerate(at)
            if across.start - 0.1 <= x <= across.end + 0.1 and up.end - 0.1 <= y <= up.start + 0.1
        ]
        return replace(self, at=at, within=inside)

    def told(self, i: int) -> str:
        """Return the tooltip of a point."""
        x, y = self.values[i]
        return f"{self.names[i]}: {number(x)}, {number(y)}"

    def label(self, i: int) -> str:
        """Return the name of a point with short values, for one beyond the frame."""
        x, y = self.values[i]
        return f"{frame.shortened(self.names[i], _NAME)}: {x:.3g}, {y:.3g}"


@dataclass(frozen=True)
class Beyond:
    """A point outside the frame, drawn as a triangle on it."""

    x: float
    y: float
    colour: int
    told: str
    label: str

    def drawn(self) -> str:
        """Return the triangle."""
        return (
            f'<path class="f{self.colour}" d="M{self.x:.1f} {self.y - _SIDE:.1f}'
            f'l-{_SIDE} {2 * _SIDE - 1}h{2 * _SIDE}z">{frame.hover(self.told)}</path>'
        )


def strip(clouds: Sequence[Cloud], wide: float, tall: float) -> float:
    """Return the height of the strip above the frame for points that are taller than `tall`.

    It has a row for each of a corner's, but no more than three.
    """
    high = [(x, y) for cloud in clouds for x, y in cloud.values if abs(y) > tall]
    corners = [sum(x * side > wide for x, _ in high) for side in (1, -1)]
    return _TALL + 1 + (_TALL + 1) * (min(max(1, *corners), _ROWS) - 1) if high else 0.0


def beyond(
    clouds: Sequence[Cloud], across: tuple[float, float], up: tuple[float, float], top: float
) -> list[Beyond]:
    """Place the points outside the frame on it, or above it, in rows where they would meet."""
    found = [
        (i, k, *cloud.at[k])
        for i, cloud in enumerate(clouds)
        for k in sorted(set(range(len(cloud.at))) - set(cloud.within))
    ]
    placed: list[Beyond] = []
    for i, k, x, y in sorted(found, key=lambda one: -one[3]):  # the tallest last, at the top
        at = min(max(x, across[0] + _SIDE), across[1] - _SIDE)
        high = min(max(y, up[0] - _TALL / 2), up[1])
        while any(abs(p.x - at) < 2 * _SIDE and abs(p.y - high) < _TALL for p in placed):
            if high - _TALL - 1 < top:  # no row is left
                break
            high -= _TALL + 1
        told = f"{clouds[i].told(k)} (beyond the frame)"
        placed.append(Beyond(at, high, i % COLOURS, told, clouds[i].label(k)))
    return placed


def named(
    clouds: Sequence[Cloud],
    outside: Sequence[Beyond],
    most: int,
    across: tuple[float, float],
    up: tuple[float, float],
    level: float | None = None,
) -> list[str]:
    """Write names beside the points that lie farthest out, where there is room for them.

    `level` is the height of a line that no name may cross.
    """
    if not most:
        return []
    dots = [cloud.at[i] for cloud in clouds for i in cloud.within]
    wanted = [(p.x, p.y, p.label) for p in outside]
    wanted += [(x, y, frame.shortened(name, _NAME)) for x, y, name in _farthest(clouds, most)]
    taken: list[Box] = [_around(p.x, p.y) for p in outside]
    if level is not None:
        taken.append((across[0], level - 1, across[1], level + 1))
    parts: list[str] = []
    top = min([up[0], *(p.y for p in outside)]) - _TALL / 2 - 2
    for x, y, words in wanted[:most]:
        wide = frame.width_of(words)
        for left, base in ((x + 8, y + 4), (x - 8 - wide, y + 4), (x - wide / 2, y - 8),
                           (x - wide / 2, y + 17)):  # fmt: skip
            box = (left, base - _TALL + 2, left + wide, base + 2)
            inside = across[0] <= box[0] and box[2] <= across[1] + 8 and top <= box[1]
            free = not any(_meet(box, other) for other in taken)
            if inside and box[3] <= up[1] and free and not any(_covers(box, d) for d in dots):
                taken.append(box)
                parts.append(frame.text(left, base, words))
                break
    return parts


def _farthest(clouds: Sequence[Cloud], most: int) -> list[tuple[float, float, str]]:
    """Return places and names of the points farthest from the middle of all, the farthest first."""
    named = [c for c in clouds if c.names]
    points = [(*cloud.at[i], cloud.names[i]) for cloud in named for i in cloud.within]
    xs, ys = sorted(x for x, _, _ in points), sorted(y for _, y, _ in points)
    half = len(points) // 2
    points.sort(key=lambda p: -math.hypot(p[0] - xs[half], p[1] - ys[half]))
    return points[:most]


def _around(x: float, y: float) -> Box:
    return (x - _SIDE, y - _SIDE, x + _SIDE, y + _SIDE)


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _covers(box: Box, dot: tuple[float, float]) -> bool:
    return box[0] - 3 < dot[0] < box[2] + 3 and box[1] - 3 < dot[1] < box[3] + 3
