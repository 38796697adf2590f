"""Figures and tables: round axes, marked missing values, nothing lost between buckets."""

from __future__ import annotations

import json
import math
import re
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcell.report import Chart, Curve, Table, axes, pixels, svg

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=30))
def test_an_axis_ends_at_its_ticks_and_holds_every_value(values: list[float]) -> None:
    axis = axes.linear(values, 54, 344)
    assert axis.low == axis.ticks[0]
    assert axis.high == axis.ticks[-1]
    room = (axis.high - axis.low) * 1e-9
    assert all(axis.low - room <= value <= axis.high + room for value in values)
    assert 2 <= len(axis.ticks) <= 14


def test_numbers_of_an_axis_have_equally_many_digits() -> None:
    assert axes.labels((0.0, 0.05, 0.1)) == ["0.00", "0.05", "0.10"]
    assert axes.labels((0.0, 1000.0, 2000.0)) == ["0", "1,000", "2,000"]


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (svg.bars({}), "nothing to show"),
        (svg.bars({"a": math.nan}), "no value"),
        (svg.line({"a": ([], [])}), "no value is finite"),
        (svg.scatter({"a": ([math.nan], [1])}), "no value is finite"),
        (svg.heat_map([]), "no value is finite"),
        (svg.heat_map([[1.0, math.nan]]), "grey: no value (1)"),
        (svg.histogram([]), "no value is finite"),
        (svg.histogram([0.0, 0.0], log=True), "and above 0"),
        (svg.histogram([0.0, 3.0], log=True), "1 at 0 left out"),
        (svg.strip({"a": {}}), "no value is finite"),
        (svg.gauge(math.nan, low=0, high=1, low_name="a", high_name="b"), "no value"),
        (Chart("none", [Curve.of("a", [], [])]).svg(), "nothing was recorded"),
    ],
)
def test_missing_values_say_so(picture: str, said: str) -> None:
    assert said in "".join(ET.fromstring(picture).itertext())


def test_a_value_that_is_missing_has_no_bar() -> None:
    assert svg.bars({"a": 1.0, "b": math.nan, "c": -1.0}).count("<rect") == 2


def test_the_pointer_shows_a_label() -> None:
    names = [f"gene {i}" for i in range(700)]
    picture = svg.scatter({"a": (range(700), range(700))}, names={"a": names})
    titles = re.findall("<title>(.*?)</title>", picture)
    assert len(titles) == 601  # the outermost ones, and the series of the rest
    assert titles[0] == "a"
    assert "gene 699: 699, 699" in titles
    assert picture.count("h0") == 700


def test_the_pointer_names_what_is_drawn_farthest_out_whatever_the_units() -> None:
    cells = [10.0**i for i in range(1, 6) for _ in range(200)]
    score = [50.0 if i == 3 else 0.0 for i in range(1000)]
    names = {"a": [f"gene {i}" for i in range(1000)]}
    picture = svg.scatter({"a": (cells, score)}, names=names, log_x=True)
    assert "<title>gene 3: 10, 50</title>" in picture


def test_large_numbers_of_a_table_are_written_out_and_tiny_ones_are_not_lost() -> None:
    values = (25437.3, 1234.5, 0.123456, 1.5e-30, math.nan)
    html = Table.of(("n",), [(v,) for v in values]).html()
    assert re.findall('<td class="n">(.*?)</td>', html) == [
        "25,437", "1,234", "0.1235", "1.5e-30", "–",
    ]  # fmt: skip


def test_x_and_y_of_one_quantity_share_their_axis() -> None:
    picture = svg.scatter({"a": ([0, 10], [0, 1])}, diagonal=True)
    assert len(re.findall(">10<", picture)) == 2


def test_a_legend_stands_above_the_data() -> None:
    picture = svg.line({"first": ([0, 1], [5, 5]), "second": ([0, 1], [9, 9])})
    entries = re.findall(r'class="dots big s\d" d="M[\d.]+ ([\d.]+)', picture)
    lines = re.findall(r'class="line s\d" d="M[\d.]+ ([\d.]+)', picture)
    assert max(map(float, entries)) < min(map(float, lines))


def test_whole_numbers_share_no_bin() -> None:
    heights = re.findall(r"<title>(.*?)</title>", svg.histogram([1, 2, 2, 3, 3, 3]))
    assert heights == ["1: 1", "2: 2", "3: 3"]


@given(st.lists(finite, min_size=1, max_size=300), st.integers(1, 40))
def test_buckets_keep_the_extremes_and_the_mean(values: list[float], buckets: int) -> None:
    curve = Curve.of("a", list(range(len(values))), values, buckets)
    assert len(curve.x) <= max(buckets, 1)
    assert min(v for v in curve.low if v is not None) == min(values)
    assert max(v for v in curve.high if v is not None) == max(values)
    for mean, low, high in zip(curve.mean, curve.low, curve.high, strict=True):
        assert mean is not None
        assert low is not None
        assert high is not None
        assert low - 1e-3 <= mean <= high + 1e-3


def test_a_curve_leaves_out_what_is_not_finite() -> None:
    curve = Curve.of("a", [1, 2, 3], [1.0, math.nan, 3.0])
    assert curve.x == [1, 3]


def test_numbers_behind_a_curve_cannot_end_their_element() -> None:
    html = Chart("t", [Curve.of("</script><b>", [1, 2], [1.0, 2.0])]).html()
    inside = re.findall(r"<script[^>]*>(.*?)</script>", html)
    assert len(inside) == 1
    assert json.loads(inside[0])["series"][0]["name"] == "</script><b>"


def test_one_table_in_four_forms() -> None:
    table = Table.of(("name", "value"), [("a|b", np.float64(0.123456)), ("c", None)])
    assert table.markdown().splitlines() == [
        "| name | value |",
        "| --- | ---: |",
        "| a\\|b | 0.1235 |",
        "| c | – |",
    ]
    assert table.csv() == "name,value\na|b,0.123456\nc,\n"
    assert '<th class="n">value</th>' in table.html()
    assert "0.1235" in table.text()


def test_a_row_that_is_too_short_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="1 values under 2 columns"):
        Table.of(("a", "b"), [(1,)])


def test_values_that_differ_by_rounding_only_are_one_value() -> None:
    axis = axes.linear([100.0, 100.0 + 1e-13], 54, 344)
    assert len(set(axes.labels(axis.ticks))) == len(axis.ticks)


def test_a_named_grid_tells_each_value_and_greys_what_is_missing() -> None:
    values = {"GATA4": [1.0, -2.0], "TBX5": [math.nan, 0.0]}
    told = {"GATA4": [", 3 cells", ""], "TBX5": ["", ""]}
    picture = svg.named_heat_map(values, ["b cell", "t cell"], legend="shift", hover=told)
    titles = re.findall("<title>(.*?)</title>", picture)
    assert "GATA4, b cell: 1, 3 cells" in titles
    assert "TBX5, b cell: no value" in titles
    cells = re.findall(r'fill="(rgb[^"]*)"><title>([^<]*)</title>', picture)
    by_cell = {words: colour for colour, words in cells}
    assert by_cell["TBX5, t cell: 0"] == "rgb(255,255,255)"
    assert by_cell["TBX5, b cell: no value"] == "rgb(150,150,150)"
    assert "grey: none (1)" in picture


def test_an_arrow_and_a_band_are_drawn_at_their_values() -> None:
    points, names = {"a": ([0, 10], [0, 10])}, {"a": ["x", "y"]}
    plain = svg.scatter(points)
    picture = svg.scatter(points, arrow=((0, 0), (10, 10)))
    picture += svg.volcano(points, names=names, band=(2, 8))
    left, wide = map(
        float,
        re.search(r'fill-opacity="0.18" x="([\d.]+)".*?width="([\d.]+)"', picture).groups(),  # type: ignore[union-attr]
    )
    ticks = [float(x) for x in re.findall(r'class="grid" d="M([\d.]+) [\d.]+V', plain)]
    assert left == pytest.approx(ticks[0] + 0.2 * (ticks[-1] - ticks[0]), abs=0.2)
    assert wide == pytest.approx(0.6 * (ticks[-1] - ticks[0]), abs=0.2)
    tip = re.search(r'fill="currentColor" d="M([\d.]+)', picture)
    assert tip is not None
    assert float(tip[1]) == pytest.approx(ticks[-1], abs=0.2)


def test_axes_of_shares_end_at_0_and_1() -> None:
    """A model with one bin that is always right: an axis up to 1.1 would exceed the whole."""
    picture = svg.scatter({"a": ([1.0], [1.0])}, diagonal=(0, 1))
    ticks = [float(text) for text in re.findall(r"<text[^>]*>([\d.]+)</text>", picture)]
    assert (min(ticks), max(ticks)) == (0.0, 1.0)


def test_short_text_stays_on_one_line_and_long_text_may_wrap() -> None:
    page = Table.of(("a", "b"), [("312 B", "a sentence of some length"), ("type-0", "x")]).html()
    assert '<td class="s">312 B</td>' in page
    assert '<td class="s">type-0</td>' in page
    assert '<td class="m">a sentence of some length</td>' in page


def test_intervals_are_lines_with_names_and_a_missing_one_is_no_value():
    rows = {
        "without <bulk>": (0.1, -0.2, 0.4), "flat": (0.0, math.nan, math.nan),
        "none": (math.nan, 0, 1),
    }  # fmt: skip
    picture = svg.intervals(rows, x="AUC lost")
    assert "<title>without &lt;bulk&gt;: 0.1 (-0.2 to 0.4)</title>" in picture
    assert picture.count('class="line s0"') == 1
    assert picture.count('class="dots big s0"') == 2
    assert "<title>none: no value</title>" in picture
    assert "no value is finite" in svg.intervals({"none": (math.nan, 0, 1)})


def test_axes_of_one_quantity_are_the_same():
    def labels(picture):
        return [re.findall(f'anchor="{side}">([-0-9.]+)<', picture) for side in ("middle", "end")]

    for drawn in (
        svg.scatter({"": ([0.0, 5.0], [-2.0, 1.0])}, equal=True),
        svg.line({"": ([0.0, 0.5], [0.0, 1.0])}, diagonal=(0, 1)),
    ):
        across, up = labels(drawn)
        assert across == up
    assert "dash" not in svg.scatter({"": ([0.0, 5.0], [-2.0, 1.0])}, equal=True)


def test_formatted_numbers_are_aligned_like_numbers():
    rows = [
        ("a1", "4.7 KiB", "at least 512", "0.118", "0.5 to 0.9"),
        ("b", None, "8", "1,234", "3 of 4"),
    ]
    assert Table.of(["name", "size", "most", "ms", "interval"], rows).numeric == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_small_counts_have_a_bin_each_and_no_half_ticks():
    picture = svg.histogram([1, 1, 2, 8, 0], x="counts", y="cells", log=True)
    assert "1 at 0 left out" in picture
    assert "1: 2</title>" in picture
    ticks = re.findall(r'anchor="(?:middle|end)">([-0-9.,]+)<', picture)
    assert ticks
    assert all(float(tick) == int(float(tick)) for tick in ticks)


@pytest.mark.parametrize("signed", [False, True])
def test_work_in_python_does_not_grow_with_the_pixels_of_a_heat_map(signed):
    """A screen of P perturbations has P x P pixels."""

    def calls(side: int) -> int:
        matrix = np.random.default_rng(0).normal(size=(side, side))
        seen = []
        sys.setprofile(lambda *_: seen.append(1))
        try:
            svg.heat_map(matrix, signed=signed)
        finally:
            sys.setprofile(None)
        return len(seen)

    calls(10)  # imports
    assert calls(100) < 2 * calls(10)


def test_colours_are_mixed_between_the_stops_of_the_ramp():
    ramp = ((0, 10, 255), (100, 11, 0), (200, 12, 1))
    shares = np.array([0, 0.25, 0.5, 0.75, 1, -3, 3, math.nan, math.inf])
    assert pixels._colours(shares, ramp).tolist() == [
        [0, 10, 255], [50, 10, 128], [100, 11, 0], [150, 12, 0], [200, 12, 1],
        [0, 10, 255], [200, 12, 1], [150, 150, 150], [150, 150, 150],
    ]  # fmt: skip
