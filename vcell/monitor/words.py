"""Numbers, times and names as short texts."""

from __future__ import annotations

import math
import re
import time
import unicodedata

_UNSEEN = dict.fromkeys((*range(32), *range(127, 160)), "�")
_MARK = 0.5e-3
# characters one column wide: Western letters, and boxes, blocks and braille of charts
_NARROW = re.compile(
    "[\x20-\x7e\xa1-\xac\xae-\u02ff\u2010-\u2027\u2190-\u2193\u2500-\u259f\u2800-\u28ff]*"
)


def clean(text: str) -> str:
    """Replace control characters: texts from files must not control a terminal."""
    return text.expandtabs(4).translate(_UNSEEN)


def cells(text: str) -> int:
    """Return the width of a text in columns of a terminal."""
    if text.isascii() or _NARROW.fullmatch(text):
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, ending: str = "…") -> str:
    """Shorten a text to `width` columns."""
    if cells(text) <= width:
        return text
    kept, room = [], width - len(ending)
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return ("".join(kept) + ending)[: max(0, width)]


def number(value: float | None, digits: int = 4) -> str:
    """Format a measured value in few characters: 1.083, 0.2214, 3.3e-4, 62,014."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    size = abs(value)
    if value == int(value) and size < 1e7:
        return f"{int(value):,}"
    if size >= 1e7 or size < _MARK:
        mantissa, _, exponent = f"{value:.{max(0, digits - 3)}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = max(0, digits - math.floor(math.log10(size)) - 1)
    return f"{value:.{decimals}f}"


def count(value: float) -> str:
    """Format a count of steps in few characters: 950, 62k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Format a time span briefly: 12 s, 14 min, 3 h 48, 2 d 5 h."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def ago(seconds: float) -> str:
    """Format how long ago something was, in one unit: now, 12 s, 14 min, 3 h, 2 d."""
    if seconds < 3:
        return "now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def each_step(seconds: float) -> str:
    """Format the time of a step: 0.36 s/step, 4.2 ms/step."""
    if seconds >= 0.1:
        return f"{number(seconds, 3)} s/step"
    return f"{number(seconds * 1e3, 3)} ms/step"


def clock(when: float) -> str:
    """Format a time of day."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def percent(share: float | None) -> str:
    """Format a share as a whole percentage; 100 % only if complete."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{min(99, round(100 * share)) if share < 1 else 100:.0f}%"


def size(amount: float) -> str:
    """Format bytes in GiB, as usual for GPU memory."""
    return f"{amount / (1 << 30):.1f}"
