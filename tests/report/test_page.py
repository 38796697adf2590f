"""Pages of results: one file, nothing fetched, nothing executed, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from vcell.report import Page, svg

NASTY = '<script>alert("x")</script>'


def example() -> Page:
    page = Page(f"title {NASTY}", "sub")
    page.heading(NASTY)
    page.text(NASTY)
    page.facts({"cells": 12345, NASTY: NASTY, "none": None})
    page.table(("name", "value"), [("a", np.float64(0.5)), ("b", None)])
    page.figure(NASTY, svg.bars({NASTY: 1.0, "nan": float("nan")}, reference=0.5), NASTY)
    page.figure("lines", svg.line({"a": ([1, 2], [3, 4]), NASTY: ([1], [np.inf])}, x=NASTY))
    page.figure("points", svg.scatter({"a": ([1, 2], [3, 4])}, diagonal=True))
    page.figure("map", svg.heat_map([[0.0, 1.0], [float("nan"), 2.0]], legend=NASTY))
    return page


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    html = example().html()
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html
    assert "style=" not in html  # the policy would drop it


def test_the_policy_allows_exactly_the_pages_own_style() -> None:
    html = example().html()
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:" in html


@pytest.mark.parametrize(
    "picture",
    [
        svg.line({"a": ([], [])}),
        svg.line({"a": ([1, 10, 100], [1, 1, 1])}, log_x=True),
        svg.scatter({"a": ([0, -1], [0, float("nan")])}, log_x=True),
        svg.bars({}),
        svg.bars({"a": -1.0}),
        svg.heat_map([]),
        svg.heat_map([[1.0, 1.0]]),
    ],
)
def test_pictures_of_awkward_data_are_well_formed(picture: str) -> None:
    assert ET.fromstring(picture).tag == "svg"
    assert "nan" not in picture


def test_a_line_passes_through_its_points() -> None:
    picture = svg.line({"a": ([0, 1, 2], [0, 1, 0])})
    path = re.search(r'class="line s0" d="M(.*?)"', picture)
    assert path is not None
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split()) for p in path[1].split("L"))
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 == y2 > y1  # SVG counts downwards


def test_a_heat_map_holds_one_pixel_per_value_dark_to_light() -> None:
    picture = svg.heat_map([[0.0, 5.0, 10.0]])
    scale, cells = re.findall(r"data:image/png;base64,([^\"]+)", picture)
    assert len(scale) > 0
    png = base64.b64decode(cells)
    assert struct.unpack(">II", png[16:24]) == (3, 1)
    start = png.index(b"IDAT") + 4
    pixels = zlib.decompress(png[start:])[1:]
    brightness = [sum(pixels[i : i + 3]) for i in (0, 3, 6)]
    assert brightness == sorted(brightness)
    assert pixels[:3] == bytes((68, 1, 84))


def test_numbers_are_readable(tmp_path) -> None:
    example().write(tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert '<td class="n">0.5</td>' in text
    assert "12,345" in text
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_a_number_and_its_percent_sign_stay_on_one_line() -> None:
    page = Page("a page")
    page.headline("95 % of nulls", "in 5 % of cells")
    page.text("a % alone, 20 % and <b>")
    assert "95\u00a0% of nulls<small>in 5\u00a0% of cells" in page.html()
    assert "a % alone, 20\u00a0% and &lt;b&gt;" in page.html()
