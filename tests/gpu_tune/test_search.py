"""The choice of a setting, with a simulated card whose optimum is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcell_gpu_tune.search import Window, phases, search

from vcell.errors import RunFailed
from vcell.gpu.settings import CardSettings, Limits

LIMITS = Limits((200.0, 700.0), 700.0, tuple(range(1980, 330, -15)), (2619,))


class Simulated:
    """A card whose step is partly bound by memory: power grows with the cube of the clock."""

    def __init__(self, memory_bound: float = 0.7, drift: float = 0.0) -> None:
        self.memory_bound, self.drift, self.measured = memory_bound, drift, 0
        self.order: list[CardSettings] = []

    def __call__(self, settings: CardSettings) -> Window:
        self.order.append(settings)
        share = settings.clocks[1] / 1980 if settings.clocks else 1.0
        cap, reasons = settings.power_limit or 700.0, frozenset[str]()
        fits = ((cap - 120) / 580) ** (1 / 3)
        if fits < share:
            share, reasons = fits, frozenset({"power cap"})
        seconds = self.memory_bound + (1 - self.memory_bound) / share
        seconds *= 1 + self.drift * self.measured
        self.measured += 1
        watts = 120 + 580 * share**3
        return Window(seconds, watts * seconds, 1980 * share, reasons)


def test_the_setting_with_the_least_energy_within_the_bound_is_chosen() -> None:
    card = Simulated()
    found = search(card, phases(LIMITS, 6), repeats=3, seed=0)
    best = found.best(0.03)
    bound = found.stock.seconds * 1.03
    assert best.seconds <= bound
    assert best.joules == min(p.joules for p in found.points if p.seconds <= bound)
    assert best.joules < found.stock.joules
    assert found.best(0.0) is found.stock
    front = found.pareto()
    assert [p.seconds for p in front] == sorted(p.seconds for p in front)
    assert [p.joules for p in front] == sorted((p.joules for p in front), reverse=True)


def test_clocks_come_before_power_limits_with_current_settings_around_both() -> None:
    card = Simulated()
    search(card, phases(LIMITS, 3), repeats=3, seed=0)
    kinds = ["clock" if s.clocks else "power" if s.power_limit else "stock" for s in card.order]
    assert kinds == ["stock"] * 3 + ["clock"] * 9 + ["stock"] * 3 + ["power"] * 9 + ["stock"] * 3
    assert card.order[3:12] != sorted(card.order[3:12], key=str)  # in random order


def test_a_card_that_drifts_allows_no_conclusion() -> None:
    with pytest.raises(RunFailed, match="drifted"):
        search(Simulated(drift=0.005), phases(LIMITS, 3), repeats=3, seed=0)


def test_windows_with_thermal_throttling_are_dropped() -> None:
    card = Simulated()

    def measure(settings: CardSettings) -> Window:
        found = card(settings)
        hot = frozenset({"heat (software)"}) if settings.clocks == (1650, 1650) else found.reasons
        return Window(found.seconds, found.joules, found.mhz, hot)

    found = search(measure, phases(LIMITS, 3), repeats=3, seed=0)
    assert any("1650" in line for line in found.dropped)
    assert all(p.settings.clocks != (1650, 1650) for p in found.points)


def test_a_limit_that_is_never_reached_is_marked() -> None:
    def measure(settings: CardSettings) -> Window:
        return Window(1.0, 150.0, 1980.0)

    found = search(measure, phases(LIMITS, 3), repeats=3, seed=0)
    caps = [p for p in found.points if p.settings.power_limit]
    assert all("inert" in " ".join(p.notes) for p in caps)
    locks = [p for p in found.points if p.settings.clocks]
    assert all("had no effect" in " ".join(p.notes) for p in locks)


@given(
    st.floats(100, 400), st.floats(410, 900), st.integers(2, 20),
    st.sets(st.integers(200, 3000), min_size=1, max_size=50),
)  # fmt: skip
def test_no_setting_is_outside_what_the_card_allows(low, high, steps, clocks) -> None:
    limits = Limits((low, high), high, tuple(sorted(clocks, reverse=True)), ())
    for phase in phases(limits, steps):
        for one in phase:
            if one.power_limit is not None:
                assert low - 1 <= one.power_limit <= high + 1
            if one.clocks is not None:
                assert one.clocks[0] in clocks
