"""Clouds of points: outliers beyond the frame, names beside points, axes and their ends."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcell.report import axes, svg

TRIANGLE = r'class="f0" d="M([\d.]+) ([\d.]+)l[^>]*><title>(.*?)</title>'
DOT = r'class="dots s0" d="M([\d.]+) ([\d.]+)h0"'


def screen(**outliers: tuple[float, float]) -> tuple[list[float], list[float], list[str]]:
    """200 genes with small changes, and some outliers."""
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(0, 0.2, 200), rng.gamma(1.0, 1.0, 200)
    names = [f"G{i}" for i in range(200)]
    for i, (name, (x, y)) in enumerate(outliers.items()):
        xs[i], ys[i], names[i] = x, y, name
    return xs.tolist(), ys.tolist(), names


def volcano(**outliers: tuple[float, float]) -> str:
    xs, ys, names = screen(**outliers)
    return svg.volcano({"genes": (xs, ys)}, names={"genes": names})


def heights(picture: str) -> list[float]:
    return sorted(float(y) for _, y in re.findall(DOT, picture))


def test_a_target_far_out_does_not_flatten_the_other_genes() -> None:
    plain, picture = volcano(), volcano(TP53=(-3.0, 300.0))
    assert not re.findall(TRIANGLE, plain)
    ((_, high, told),) = re.findall(TRIANGLE, picture)
    assert told == "TP53: -3, 300 (beyond the frame)"
    assert ">TP53: -3, 300</text>" in picture
    assert "▲ beyond the frame" in picture
    drawn = heights(picture)
    assert len(drawn) == 199
    assert float(high) < drawn[0]  # above the frame
    spread = drawn[-1] - drawn[0]
    assert spread == pytest.approx(heights(plain)[-1] - heights(plain)[0], rel=0.4)
    flat = svg.scatter({"genes": screen(TP53=(-3.0, 300.0))[:2]}, names={"genes": ["x"] * 200})
    assert spread > 10 * (heights(flat)[-1] - heights(flat)[1])


def test_outliers_of_one_corner_lie_in_rows_each_with_its_name() -> None:
    picture = volcano(A=(4.0, 300.0), B=(3.0, 200.0), C=(2.5, 100.0))
    found = re.findall(TRIANGLE, picture)
    assert {told[0] for *_, told in found} == {"A", "B", "C"}
    rows = sorted(float(y) for _, y, _ in found)
    assert min(b - a for a, b in itertools.pairwise(rows)) > 9
    for words in ("A: 4, 300", "B: 3, 200", "C: 2.5, 100"):
        assert f">{words}</text>" in picture


def test_a_volcano_without_changes_says_so() -> None:
    picture = svg.volcano({"a": ([0.0, 0.0], [0.0, 0.0])}, names={"a": ["x", "y"]})
    assert "no gene changes" in picture


def test_the_outermost_points_are_named_beside_them_without_a_pointer() -> None:
    names = [f"G{i}" for i in range(30)]
    xs = [math.cos(i) for i in range(29)] + [9.0]
    ys = [math.sin(i) for i in range(29)] + [7.0]
    picture = svg.scatter({"": (xs, ys)}, names={"": names}, labels=1)
    assert ">G29</text>" in picture
    assert ">G3</text>" not in picture


@given(st.lists(st.floats(-1e6, 1e6), max_size=300))
def test_few_values_lie_beyond_a_scale_and_only_far_beyond(values: list[float]) -> None:
    limit = axes.reach(values)
    sizes = sorted(abs(v) for v in values if abs(v) > 1e-12)
    beyond = [size for size in sizes if size > limit]
    assert len(beyond) <= max(1, len(sizes) // 50)
    if beyond:
        usual = sizes[-1 - max(1, len(sizes) // 50)]
        assert min(beyond) > 4 * usual
        assert limit >= usual


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([8000, 57000], [5000, 10000, 20000, 50000, 100000]),
        ([1, 1e4], [1, 10, 100, 1000, 10000]),
        ([0.04, 200], [0.01, 0.1, 1, 10, 100, 1000]),
        ([1000], [1000, 10000]),
    ],
)
def test_a_log_axis_ends_at_ticks_near_its_values(values: list[float], ticks: list[float]) -> None:
    assert axes.logarithmic(values, 0, 290).ticks == pytest.approx(ticks)


@given(st.lists(st.floats(1e-9, 1e12), min_size=1), st.sampled_from([120, 200, 290, 900]))
def test_a_log_axis_holds_its_values_and_its_labels_have_room(
    values: list[float], length: float
) -> None:
    axis = axes.logarithmic(values, 0, length)
    assert axis.low == axis.ticks[0] <= min(values) * (1 + 1e-6)
    assert axis.high == axis.ticks[-1] >= max(values) * (1 - 1e-6)
    places = [axis.at(tick) for tick in axis.ticks]
    assert len(places) == 2 or min(b - a for a, b in itertools.pairwise(places)) > 12


def test_values_of_like_size_get_no_log_axis() -> None:
    assert not axes.by_size([560, 600], 0, 290).log
    assert axes.by_size([100, 600], 0, 290).log


def test_counts_have_no_axis_below_zero() -> None:
    rng = np.random.default_rng(0)
    picture = svg.histogram(rng.integers(0, 280, 500).tolist(), x="genes")
    ticks = re.findall(r'text-anchor="middle">(-?[\d,]+)<', picture)
    assert ticks[0] == "0"
    assert sum(int(n) for n in re.findall(r": (\d+)</title>", picture)) == 500


def test_a_log_histogram_says_that_negative_values_are_left_out() -> None:
    assert "2 at 0 or below left out" in svg.histogram([-5.5, 0, 1, 100], log=True)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([3.524, 0.3807, 0.0], ["3.524", "0.381", "0"]),
        ([1.0, 0.5], ["1.0", "0.5"]),
        ([0.05, 1e-9], ["0.05", "1e-09"]),  # p-values: no column of equal decimals
        ([1234.5, 200.25], ["1,234", "200"]),
        ([400.0, 347.0], ["400", "347"]),
        ([0.8056, 0.008802], ["0.8056", "0.008802"]),  # rounding would take its digits
        ([math.nan, 0.25], ["no value", "0.25"]),
    ],
)
def test_numbers_of_a_column_have_equal_decimals(values: list[float], written: list[str]) -> None:
    assert axes.column(values) == written


def test_a_grid_without_signs_goes_from_dark_to_light() -> None:
    picture = svg.named_heat_map({"a": [0.0, 5.0]}, ["x", "y"], signed=False)
    assert "rgb(68,1,84)" in picture
    assert "rgb(253,231,37)" in picture


def test_a_few_values_far_out_do_not_bleach_a_grid() -> None:
    rows = {f"r{i}": [0.1, -0.1, 0.05, 0.08] for i in range(30)} | {"far": [50.0, 0.1, 0.1, 0.1]}
    picture = svg.named_heat_map(rows, list("wxyz"))
    assert "≥ 0.1" in picture
    assert "far, w: 50" in picture
    assert picture.count("rgb(178,24,43)") > 30  # the strongest red, of 0.1 and beyond
