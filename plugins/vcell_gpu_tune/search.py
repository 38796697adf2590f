"""Choose the best setting from repeated measurements in random order. No GPU is needed.

Clock locks are tried before power limits, because a limit that is never reached saves nothing. The
card is measured with its current settings before and after every phase. If these two measurements
differ by more than 2 %, something else has changed, and no conclusion is drawn.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vcell.errors import RunFailed
from vcell.gpu.settings import CardSettings, Limits

DRIFT = 0.02
_LEAST_SHARE = 0.5  # of the highest clock, and of the highest power limit
_INERT = 0.01  # relative change of time and energy, below which a setting has no effect
_TRIES = 2  # repeats of a window in which the card was throttled by heat

HOT = frozenset({"heat (software)", "heat (hardware)", "hardware slowdown"})


@dataclass(frozen=True)
class Window:
    """One measurement: a step's time and energy, and what throttled the card."""

    seconds: float  # per step
    joules: float  # per step
    mhz: float = 0.0
    reasons: frozenset[str] = frozenset()

    @property
    def hot(self) -> bool:
        """Whether heat throttled the card; such a window is not used."""
        return bool(self.reasons & HOT)


@dataclass(frozen=True)
class Trial:
    """A setting and its measurements."""

    settings: CardSettings
    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Median seconds per step."""
        return statistics.median(w.seconds for w in self.windows)

    @property
    def joules(self) -> float:
        """Median joules per step."""
        return statistics.median(w.joules for w in self.windows)

    @property
    def name(self) -> str:
        """A description of the setting."""
        return ", ".join(self.settings.words()) or "as it is"


@dataclass
class SearchResult:
    """The result of a search."""

    stock: Trial
    points: list[Trial] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def best(self, max_slowdown: float) -> Trial:
        """Return the trial with the least energy that is fast enough; current settings included."""
        bound = self.stock.seconds * (1 + max_slowdown)
        fast = [p for p in (self.stock, *self.points) if p.seconds <= bound]
        return min(fast, key=lambda point: (point.joules, point.seconds))

    def pareto(self) -> list[Trial]:
        """Return the Pareto front of time and energy, fastest first."""
        front: list[Trial] = []
        for point in sorted((self.stock, *self.points), key=lambda p: (p.seconds, p.joules)):
            if not front or point.joules < front[-1].joules:
                front.append(point)
        return front


Measure = Callable[[CardSettings], Window]


def phases(limits: Limits, steps: int) -> list[list[CardSettings]]:
    """Return the settings to try: clock locks, then power limits."""
    found = []
    if limits.clocks:
        top = max(limits.clocks)
        clocks = [top * (1 - (1 - _LEAST_SHARE) * (i + 1) / steps) for i in range(steps)]
        locks = dict.fromkeys(min(limits.clocks, key=lambda mhz: abs(mhz - w)) for w in clocks)
        found.append([CardSettings(clocks=(mhz, mhz)) for mhz in locks])
    if limits.power:
        low, high = limits.power
        low = max(low, _LEAST_SHARE * high)
        caps = dict.fromkeys(round(high - (high - low) * (i + 1) / steps) for i in range(steps))
        found.append([CardSettings(power_limit=float(watts)) for watts in caps])
    return found


def search(
    measure: Measure, phases: Sequence[Sequence[CardSettings]], *, repeats: int, seed: int
) -> SearchResult:
    """Measure every setting `repeats` times; refuse to conclude if the card drifted."""
    rng, stock = random.Random(seed), CardSettings()
    first = _measured(measure, [stock], repeats, rng)[0]
    if not first.windows:
        raise RunFailed(
            "heat already slows the card down, so nothing can be measured",
            hint="let it cool, or improve the cooling",
        )
    found, before = SearchResult(first), first
    for candidates in phases:
        for point in _measured(measure, candidates, repeats, rng):
            if point.windows:
                found.points.append(_noted(point, first))
            else:
                found.dropped.append(f"{point.name}: heat slowed the card down in every window")
        after = _measured(measure, [stock], repeats, rng)[0]
        _steady(before, after)
        before = after
    return found


def _measured(
    measure: Measure, candidates: Sequence[CardSettings], repeats: int, rng: random.Random
) -> list[Trial]:
    """Measure in random order, so that warming up affects all settings alike."""
    order = [i for i in range(len(candidates)) for _ in range(repeats)]
    rng.shuffle(order)
    windows: list[list[Window]] = [[] for _ in candidates]
    for i in order:
        for _ in range(_TRIES):
            window = measure(candidates[i])
            if not window.hot:
                windows[i].append(window)
                break
    return [Trial(c, tuple(w)) for c, w in zip(candidates, windows, strict=True)]


def _steady(before: Trial, after: Trial) -> None:
    if not after.windows:
        raise RunFailed("the card became too hot while it was measured; nothing is concluded")
    for measure in ("seconds", "joules"):
        drift = getattr(after, measure) / getattr(before, measure) - 1
        if abs(drift) > DRIFT:
            raise RunFailed(
                f"the card as it is drifted by {drift:+.1%} ({measure} a step) while settings were "
                "measured; nothing is concluded",
                hint="see that nothing else runs on the machine, and measure again",
            )


def _noted(point: Trial, stock: Trial) -> Trial:
    """Note power limits that are never reached, and clock locks that are not followed."""
    notes = []
    watts, lock = point.settings.power_limit, point.settings.clocks
    reached = any("power cap" in window.reasons for window in point.windows)
    same = abs(point.seconds / stock.seconds - 1) < _INERT
    if watts is not None and not reached and same:
        notes.append("inert: the card never draws that much")
    clock = statistics.median(window.mhz for window in point.windows)
    if lock is not None and clock > lock[1] * 1.02:
        notes.append(f"the clock ran at {clock:.0f} MHz: the lock had no effect")
    return Trial(point.settings, point.windows, tuple(notes))
