"""Curves as text: where dots lie, what a spike does, and how long series are summed up."""

from __future__ import annotations

import math
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcell.monitor import words
from vcell.monitor.chart import ChartFrame, Point, Trace, chart
from vcell.monitor.lines import text, width
from vcell.monitor.summary import Summary, buckets, smoothed
from vcell.runs import EventTable


def line(values: list[float]) -> list[Point]:
    return [Point(float(x), y, y, y) for x, y in enumerate(values)]


def drawn(points: list[Point], **more) -> list[str]:
    frame = ChartFrame(more.pop("width", 48), more.pop("height", 12), **more)
    return [text(row) for row in chart([Trace(points)], frame)]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    page = drawn(line([0.0, 1.0]), plain=True)
    marks = [row[8:].find("*") for row in page[:10]]
    assert marks == sorted(marks, reverse=True)
    assert marks[-1] == 0
    assert page[0].endswith("*")
    for column in range(40):  # without a gap
        assert any(row[8 + column] == "*" for row in page[:10] if len(row) > 8 + column)


def test_axes_carry_round_values_and_the_ends_of_x():
    page = drawn(line([0.0, 10.0, 5.0]))
    labels = [row[:7].strip() for row in page if row[:7].strip()]
    assert labels == ["10", "5", "0"]
    assert page[-1].split() == ["0", "1", "2"]


def test_a_logarithmic_axis_has_powers_of_ten_and_leaves_out_what_it_cannot_show():
    page = drawn(line([1000.0, 0.0, -5.0, 10.0, 0.1]), log=True)
    labels = [row[:7].strip() for row in page if row[:7].strip()]
    assert labels[0] == "1000"
    assert set(labels) <= {"1000", "100", "10", "1", "0.1"}


def test_a_lonely_spike_stays_in_the_band_and_does_not_flatten_the_curve():
    rng = random.Random(0)
    points = [Point(float(x), 1 + rng.random(), 0.9, 2.1) for x in range(400)]
    points[200] = Point(200.0, 1.5, 0.9, 1e6)
    labels = [float(row[:7]) for row in drawn(points) if row[:7].strip()]
    assert max(labels) <= 2.1


def test_nothing_to_draw_is_said():
    assert "nothing measured yet" in "\n".join(drawn([]))
    assert "nothing measured yet" in "\n".join(drawn(line([math.nan, math.inf])))


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(numbers, max_size=30),
    st.integers(9, 80),
    st.integers(2, 20),
    st.booleans(),
    st.booleans(),
)
def test_whatever_was_measured_is_drawn_in_its_size(values, columns, rows, log, plain):
    frame = ChartFrame(columns, rows, log=log, plain=plain, guides=[1.0], cursor=2.0, names=True)
    page = chart([Trace(line(values)), Trace(line(values[::-1]), 1, "o")], frame)
    assert len(page) == rows
    assert all(width(row) <= max(columns, 40) for row in page)


# --- summaries


def test_a_summary_that_grows_equals_one_made_at_once():
    rng = random.Random(1)
    table, whole, growing = EventTable(), EventTable(), Summary()
    found = []
    for block in range(60):
        events = [
            {"t": 1.0, "kind": "metric", "step": 100 * block + i, "loss": rng.random()}
            for i in range(100)
        ]
        table.extend(events)
        whole.extend(events)
        found = growing.update(table, "loss")
    assert found == Summary().update(whole, "loss")
    assert len(found) <= 1024
    assert found[0].first == 0
    assert found[-1].last == 5999
    values = whole.columns["loss"]
    for one in found:
        part = values[one.first : one.last + 1]
        assert (one.low, one.high) == (min(part), max(part))
        assert one.mean == pytest.approx(sum(part) / len(part))


def test_a_summary_starts_over_when_a_resumed_run_dropped_rows():
    table, summary = EventTable(), Summary()
    table.extend([{"t": 1.0, "kind": "metric", "step": s, "loss": 1.0} for s in range(3000)])
    summary.update(table, "loss")
    table.drop_after(999)
    table.extend([{"t": 1.0, "kind": "metric", "step": s, "loss": 2.0} for s in range(1000, 3000)])
    found = summary.update(table, "loss")
    assert [b.mean for b in found if b.last < 1000] == [1.0] * sum(b.last < 1000 for b in found)
    assert {b.mean for b in found if b.first >= 1000} == {2.0}


def test_what_is_no_number_is_a_gap():
    found = buckets([1.0, math.nan, 3.0, math.nan, math.nan, math.inf], 0, 6, most=2)
    assert [(b.first, b.mean, b.low, b.high) for b in found] == [(0, 2.0, 1.0, 3.0)]


def test_smoothing_has_no_bias_at_its_start_and_settles_on_a_constant():
    assert smoothed([5.0] * 10, [1] * 10, 4) == pytest.approx([5.0] * 10)
    assert smoothed([1.0, 2.0], [1, 1], 1) == [1.0, 2.0]
    step = smoothed([0.0] * 50 + [1.0] * 50, [1] * 100, 10)
    assert step[59] == pytest.approx(1 - 0.9**10, abs=0.01)


def test_what_is_taken_for_narrow_takes_one_column():
    characters = [chr(code) for code in range(32, 0x3000)]
    narrow = [c for c in characters if not unicodedata.combining(c)]
    narrow = [c for c in narrow if unicodedata.east_asian_width(c) not in "WF"]
    assert words.cells("".join(characters)) == sum(map(words.cells, characters))
    assert all(words.cells(c) == 1 for c in narrow)
    assert words.cells("e\u0301") == 1
    assert words.cells("細胞") == 4
