"""The parts of every figure: the frame with its axes, labels, a legend above the data.

Pictures are drawn `WIDTH` pixels wide, which fits a phone, and are never stretched: the font size
is the same at every width of the window. Colours are classes that the page's style sheet defines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from vcell.report.axes import Axis, labels

WIDTH, HEIGHT = 356, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 8, 40  # room for tick labels and titles
COLOURS = 8
# widths in pixels of characters in a wide 11-pixel font (DejaVu Sans): most letters, capitals
_LETTER, _CAPITAL, _NARROW, _WIDE, _SQUARE = 6.8, 7.6, 4.3, 10.9, 11.0


def drawing(parts: Iterable[str], height: float, words: str) -> str:
    """Return the whole picture; `words` describe it for screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(words, quote=True)}">{"".join(parts)}</svg>'
    )


def empty(why: str) -> str:
    """Return a small picture that says why it is empty."""
    return drawing([text(WIDTH / 2, 34, why, "middle")], 60, why)


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Return one line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def rotated(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Return one line of text that reads upwards."""
    return (
        f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def hover(words: str) -> str:
    """Return the tooltip of the enclosing element."""
    return f"<title>{escape(words)}</title>"


def dot(x: float, y: float, colour: int, words: str) -> str:
    """Return a point that the pointer names."""
    return f'<path class="dots s{colour}" d="M{x:.1f} {y:.1f}h0">{hover(words)}</path>'


def shortened(words: str, pixels: float) -> str:
    """Shorten words to the given width, with an ellipsis."""
    if width_of(words) <= pixels:
        return words
    short = words
    while len(short) > 1 and width_of(short + "…") > pixels:
        short = short[:-1]
    return short + "…"


def row_name(name: str, end: float, y: float) -> str:
    """Write the name of a row, which ends at `end`, shortened to the space on its left."""
    return text(end - 5, y, shortened(name, end - 7), "end")


def width_of(words: str) -> float:
    """Estimate how wide a line of text is, in pixels."""
    return sum(map(_width, words))


def _width(letter: str) -> float:
    if letter in "iljtfr.,:;'|!()[] -":
        return _NARROW
    if letter in "mwMW@%…":
        return _WIDE
    if ord(letter) >= 0x2E80:  # Chinese, Japanese, Korean; emoji
        return _SQUARE
    return _CAPITAL if letter.isupper() or letter.isdigit() else _LETTER


def legend(names: Sequence[str]) -> tuple[list[str], float]:
    """Return the legend's parts and its height; it is above the data, in rows."""
    parts, x, y = [], float(LEFT), TOP + 4.0
    for i, name in enumerate(names):
        shown = shortened(name, WIDTH - LEFT - 30)
        wide = 24 + width_of(shown)
        if x > LEFT and x + wide > WIDTH:
            x, y = float(LEFT), y + 16
        parts.append(f'<path class="dots big s{i % COLOURS}" d="M{x + 4:.1f} {y:.1f}h0"/>')
        parts.append(text(x + 13, y + 4, shown))
        x += wide
    return parts, (y + 12 - TOP if names else 0.0)


def x_axis(axis: Axis, top: float, bottom: float, title: str) -> str:
    """Draw the lower axis with its grid."""
    parts = [f'<path class="axis" d="M{axis.start:.1f} {bottom:.1f}H{axis.end:.1f}"/>']
    for tick, label in zip(axis.ticks, labels(axis.ticks, log=axis.log), strict=True):
        at = axis.at(tick)
        half = width_of(label) / 2
        within = min(max(at, half + 1), WIDTH - half - 1)
        parts.append(f'<path class="grid" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(text(within, bottom + 15, label, "middle"))
    parts.append(text((axis.start + axis.end) / 2, bottom + 32, title, "middle"))
    return "".join(parts)


def y_axis(axis: Axis, title: str) -> str:
    """Draw the left axis with its grid."""
    parts = [f'<path class="axis" d="M{LEFT} {axis.start:.1f}V{axis.end:.1f}"/>']
    for tick, label in zip(axis.ticks, labels(axis.ticks, log=axis.log), strict=True):
        at = axis.at(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT:.1f}"/>')
        parts.append(text(LEFT - 5, at + 4, label, "end"))
    middle = (axis.start + axis.end) / 2
    parts.append(rotated(11, middle, shortened(title, abs(axis.start - axis.end) + 20)))
    return "".join(parts)
