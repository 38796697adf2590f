"""Axes of a picture: values to pixels, ends and ticks at round numbers. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NOTHING = 1e-12  # values closer to zero are rounding errors
_MANY = 20  # values of which a few may be called outliers
_ALIKE = 30  # ratio of sizes up to which numbers are written with equal decimals


@dataclass(frozen=True)
class Axis:
    """Maps values onto pixels; `start` and `end` are the pixels of `low` and `high`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (self._scaled(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def all_at(self, values: Iterable[float]) -> list[float]:
        """Return the pixels of many values."""
        scaled = self._scaled
        low, high = scaled(self.low), scaled(self.high)
        start, span, length = self.start, high - low, self.end - self.start
        return [start + (scaled(value) - low) / span * length for value in values]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def linear(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    spacing: float = 60,
    zero: bool = False,
    whole: bool = False,
) -> Axis:
    """Fit an axis to the finite values; its ends are multiples of the step between ticks.

    Parameters
    ----------
    spacing
        Pixels that a tick and its label need.
    zero
        Whether the axis must include zero, as for bars.
    whole
        Whether the values are counts, so that all ticks are whole numbers.
    """
    finite = [0.0 if abs(v) < NOTHING else v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value: give it room on both sides
        room, share = abs(low) * 0.1 or 0.5, are_shares([low])
        low, high = low - room, high + room
        if share:
            low, high = max(low, 0.0), min(high, 1.0)
    wanted = max(2, round(abs(end - start) / spacing))
    step = round_step((high - low) / wanted)
    if whole:
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(i * step for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def are_shares(values: Iterable[float]) -> bool:
    """Return whether all may be shares of 1, so that an axis must not leave 0 to 1."""
    return all(0 <= value <= 1 for value in values)


def by_size(
    values: Iterable[float], start: float, end: float, *, spacing: float = 45, whole: bool = False
) -> Axis:
    """Fit a logarithmic axis to the positive values, or a linear one if they are of like size."""
    positive = [v for v in values if math.isfinite(v) and v > 0]
    if positive and max(positive) < 3 * min(positive):
        return linear(positive, start, end, spacing=max(spacing, 45), whole=whole)
    return logarithmic(positive, start, end, spacing=spacing)


def logarithmic(values: Iterable[float], start: float, end: float, *, spacing: float = 45) -> Axis:
    """Fit a logarithmic axis to the positive values.

    It has ticks at 1, 2 and 5 times powers of ten and ends at two of them; where these are too many
    for the space, at powers of ten.
    """
    positive = [v for v in values if math.isfinite(v) and v > 0]
    low, high = min(positive, default=1.0), max(positive, default=10.0)
    room = abs(end - start) / spacing
    ticks = _decades(low, high, (1, 2, 5))
    if len(ticks) < 2 or len(ticks) - 1 > room:
        first = math.floor(math.log10(low) + 1e-9)
        last = max(math.ceil(math.log10(high) - 1e-9), first + 1)
        stride = max(1, math.ceil((last - first) / room))
        last = first + stride * math.ceil((last - first) / stride)  # it ends at a tick
        ticks = tuple(10.0**power for power in range(first, last + 1, stride))
    return Axis(ticks[0], ticks[-1], start, end, ticks, log=True)


def _decades(low: float, high: float, within: Sequence[int]) -> tuple[float, ...]:
    """Return multiples of powers of ten, from the last one up to `low` to the first from `high`."""
    powers = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)
    every = [float(f"{m}e{power}") for power in powers for m in within]
    first = max((i for i, v in enumerate(every) if v <= low * (1 + 1e-9)), default=0)
    last = next((i for i, v in enumerate(every) if v >= high * (1 - 1e-9)), len(every) - 1)
    return tuple(every[first : last + 1])


def reach(values: Iterable[float], few: float = 0.02) -> float:
    """Return how far from zero a scale should go for a few outliers not to flatten all others.

    Of many values, all but this share get at least a quarter of the scale; what is farther away
    lies beyond it.
    """
    sizes = sorted(abs(v) for v in values if math.isfinite(v) and abs(v) > NOTHING)
    if len(sizes) < _MANY:
        return sizes[-1] if sizes else 0.0
    usual = sizes[-1 - max(1, int(few * len(sizes)))]
    return max(size for size in sizes if size <= 4 * usual)


def round_step(rough: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    unit = 10.0 ** math.floor(math.log10(rough))
    return next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)


def labels(ticks: Sequence[float], *, log: bool = False) -> list[str]:
    """Write the numbers of an axis, all with the digits that their step needs."""
    if log or len(ticks) < 2:
        return [number(tick) for tick in ticks]
    step = ticks[1] - ticks[0]
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e6 or largest < 1e-3:
        return [number(tick) for tick in ticks]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{0.0 if abs(tick) < step / 1e6 else tick:,.{digits}f}" for tick in ticks]


def number(value: float) -> str:
    """Write a number with four digits and separated thousands."""
    if not math.isfinite(value):
        return "no value"
    if abs(value) < NOTHING:
        return "0"
    if abs(value) >= 1e6:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def column(values: Sequence[float], alone: Callable[[float], str] = number) -> list[str]:
    """Write the numbers of a column with equal decimals: those that four digits of the largest ask.

    Where sizes differ more, so that digits of the smallest would be lost, each is written alone.
    """
    written = [alone(value) for value in values]
    sizes = [abs(v) for v in values if math.isfinite(v) and v]
    if not sizes or max(sizes) > _ALIKE * min(sizes) or any("e" in text for text in written):
        return written
    used = max(len(text.partition(".")[2]) for text in written)
    digits = min(used, max(0, 3 - math.floor(math.log10(max(sizes)) + 1e-9)))
    return [
        f"{value:,.{digits}f}" if value and math.isfinite(value) else text
        for value, text in zip(values, written, strict=True)
    ]
