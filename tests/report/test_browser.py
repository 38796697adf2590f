"""Pages in a real browser: nothing is refused or fetched, curves can be zoomed and read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vcell.report import Chart, Curve, Page, svg

if TYPE_CHECKING:
    from tests.browser import Browser

CURVE = "figure.curve > svg"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Page("a page", "with a long name/" * 12)
    made.headline("ridge beats the mean by .04 (.01 to .07)", "48 perturbations", tone="good")
    steps = list(range(5000))
    loss = [3 * math.exp(-step / 900) + (40.0 if step == 2500 else 0.0) for step in steps]
    curves = [Curve.of("one", steps, loss), Curve.of("<b>two</b>", [1, 2500, 4999], [1, 2, 3])]
    made.chart(Chart("Loss", curves, y="loss", marks={"baseline": 1.0}))
    made.chart(Chart("Nothing", [Curve.of("", [], [])]))
    made.figure("Bars", svg.bars({"A" * 60: 1.0, "B": -2.0, "C": math.nan}, x="gain"))
    made.figure("Map", svg.heat_map([[1.0, -2.0], [math.nan, 0.5]], signed=True, legend="change"))
    made.table([f"column {i}" for i in range(14)], [[i * 1234.5678 for i in range(14)]])
    made.facts({"path": "/a/long/folder" * 20})
    path = tmp_path_factory.mktemp("page") / "index.html"
    made.write(path)
    return path


@pytest.fixture(scope="module")
def hard_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of every kind, missing values, single values, hundreds of rows, overlapping marks."""
    made = Page("a page", "<b>&")
    made.headline("a result")
    hard = ['<script>alert(1)</script> & "Zelle"', "häßlich " * 12, "n" * 80, "no value"]
    values = [0.31, -0.2, 1234567.0, math.nan]
    made.figure("Named bars", svg.bars(dict(zip(hard, values, strict=True)), reference=4.0))
    ends = {name: (value, value - 1, value + 1) for name, value in zip(hard, values, strict=True)}
    made.figure("Intervals", svg.intervals(ends, x="lost"))
    made.figure("Strip", svg.strip({name: {"a": 1.0, "b": 2.0} for name in hard}, x="gain"))
    made.figure("Cloud", svg.scatter({name: ([0.0], [i]) for i, name in enumerate(hard)}))
    rng = np.random.default_rng(0)
    sides = {side: (rng.normal(size=200), rng.gamma(1, 1, 200)) for side in ("real", "predicted")}
    for (x, y), at in zip(sides.values(), (-9.0, 9.0), strict=True):
        x[:5], y[:5] = at, 300.0
    named = {side: [*hard, *(f"G{i}" for i in range(196))] for side in sides}
    made.figure("Volcano", svg.volcano(sides, names=named, level=1.3))
    grid = {name: rng.normal(size=4).tolist() for name in hard}
    made.figure("Grid", svg.named_heat_map(grid, hard, legend="rank", signed=False))
    made.figure("Many bars", svg.bars({f"GENE{i:03}": i % 7 for i in range(500)}))
    marks = {"prior": 0.5, "mean effect": 0.501, "far off": 40.0}
    made.chart(Chart("Marks", [Curve.of("", [0, 10, 20], [0.5, 0.55, 0.6])], marks=marks))
    made.chart(Chart("One share", [Curve.of("", [0, 10], [1.0, 1.0])]))
    made.table(("name", "of", "size"), [(hard[0], True, "4.7 KiB"), (hard[1], None, None)])
    path = tmp_path_factory.mktemp("hard") / "index.html"
    made.write(path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_awkward_names_and_values_cause_no_layout_problems(
    browser: Browser, hard_page: Path, width: int, scheme: str
) -> None:
    browser.open(hard_page, width, scheme=scheme)
    assert browser.objections() == []
    words = browser.run("return document.body.textContent")
    assert "far off: 40, above" in words


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_its_window_and_logs_no_errors(
    browser: Browser, page: Path, width: int
) -> None:
    browser.open(page, width)
    wide, inner = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == width
    assert wide <= width
    assert browser.objections() == []
    assert browser.requests() == []


def test_type_keeps_its_size_at_every_width(browser: Browser, page: Path) -> None:
    sizes = []
    for width in (390, 1280):
        browser.open(page, width)
        sizes.append(
            browser.run(
                "return [...document.querySelectorAll('svg[viewBox]')].map(s =>"
                "s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
            )
        )
    for scale in [one for group in sizes for one in group]:
        assert scale == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("document.documentElement.style.setProperty('--faint', '#3a4046')", "faint (1."),
        ("document.querySelector('.verdict').remove()", "does not say the result"),
        ("document.querySelector('h1').append(document.createElement('script'))", "a script"),
        ("document.querySelector('td').textContent = 'NaN'", "not for people: NaN"),
        ("document.querySelector('svg title').textContent = 'A: None'", "not for people: A: None"),
        ("document.querySelector('h1').style.width = '2000px'", "wider than the window"),
    ],
)
def test_a_reader_objects(browser: Browser, page: Path, change: str, words: str) -> None:
    browser.open(page, scheme="dark")
    assert browser.objections() == []
    browser.run(change)
    assert any(words in one for one in browser.objections())


def test_the_pointer_finds_every_named_point(browser: Browser, tmp_path: Path) -> None:
    made = Page("a page")
    made.headline("points")
    xs = [float(i) for i in range(20)]
    names = {"a": [f"<i>{i}</i>" for i in range(20)]}
    made.figure("Cloud", svg.scatter({"a": (xs, xs), "b": (xs, xs[::-1])}, names=names))
    made.write(tmp_path / "index.html")
    browser.open(tmp_path / "index.html", 390)
    told = browser.run(
        "return [...document.querySelectorAll('.dots:not(.big)')].flatMap(p => "
        "[...p.getAttribute('d').matchAll(/M([\\d.]+) ([\\d.]+)/g)].map(m => {"
        "const q = new DOMPoint(+m[1], +m[2]).matrixTransform(p.getScreenCTM());"
        "return document.elementFromPoint(q.x, q.y).querySelector('title')?.textContent}))"
    )
    assert told == [*(f"<i>{i}</i>: {i}, {i}" for i in range(20)), *["b"] * 20]


@pytest.mark.parametrize("width", range(390, 1400, 110))
def test_the_last_tick_of_a_curve_is_the_axis_end(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    made = Page("a page")
    made.chart(Chart("Loss", [Curve.of("", range(151), [step / 1e4 for step in range(151)])]))
    made.write(tmp_path / "index.html")
    browser.open(tmp_path / "index.html", width)
    across, up, wide, beside = browser.run(
        "const s = document.querySelector(arguments[0]), g = [...s.querySelectorAll('.grid')]"
        ".map(p => p.getAttribute('d').match(/^M([\\d.]+) ([\\d.]+)([HV])/));"
        "return [g.filter(p => p[3] === 'V').map(p => Number(p[1])),"
        "g.filter(p => p[3] === 'H').map(p => Number(p[2])), s.viewBox.baseVal.width,"
        "[...s.querySelectorAll('text[text-anchor=end]')].map(t => t.textContent)]",
        CURVE,
    )
    assert (min(across), max(across)) == (pytest.approx(58), pytest.approx(wide - 12))
    assert (min(up), max(up)) == (pytest.approx(10), pytest.approx(280 - 38))
    assert beside == ["0.000", "0.005", "0.010", "0.015"]


@pytest.mark.parametrize("log", [False, True])
def test_axes_of_a_curve_end_at_round_numbers(browser: Browser, page: Path, log: bool) -> None:
    browser.open(page)
    if log:
        browser.press(CURVE, "l")
    right, end, low, high = browser.run(
        "const s = document.querySelector(arguments[0]), g = [...s.querySelectorAll('.grid')]"
        ".map(p => p.getAttribute('d').match(/[\\d.]+/g).map(Number));"
        "const up = g.filter((_, i) => g[i][0] === 58 && g[i].length === 3).map(p => p[1]);"
        "const across = g.filter(p => !(p[0] === 58 && p[1] !== 10)).map(p => p[0]);"
        "return [Math.max(...across), s.viewBox.baseVal.width - 12, Math.max(...up), "
        "Math.min(...up)]",
        CURVE,
    )
    assert right == pytest.approx(end, abs=1)
    assert (low, high) == (pytest.approx(280 - 38, abs=1), pytest.approx(10, abs=1))
    words = browser.run(
        "return [...document.querySelectorAll(arguments[0])].map(t => t.textContent)",
        f"{CURVE} text[text-anchor=end]",
    )
    numbers = [word for word in words if word.replace(".", "").isdigit()]
    assert numbers
    assert all(len(word.replace(".", "").strip("0")) <= 2 for word in numbers)


def test_a_spike_does_not_flatten_the_curve(browser: Browser, page: Path) -> None:
    browser.open(page)
    ticks = "return [...document.querySelectorAll(arguments[0])].map(t => t.textContent)"
    words = browser.run(ticks, f"{CURVE} text")
    ends = browser.run(ticks, f"{CURVE} text[text-anchor=end]")
    assert max(float(word) for word in ends if word.replace(".", "").isdigit()) < 10
    assert any("spikes" in word for word in words)
    browser.run(
        "[...document.querySelectorAll('button')].find(b => b.textContent == 'full range').click()"
    )
    words = browser.run(ticks, f"{CURVE} text")
    assert not any("spikes" in word for word in words)


def test_dragging_zooms_and_a_key_shows_all_again(browser: Browser, page: Path) -> None:
    browser.open(page)
    ticks = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".map(t => Number(t.textContent.replace(/,/g, '')))"
    )
    where = f"{CURVE} text[text-anchor=middle]"
    before = [n for n in browser.run(ticks, where) if n is not None]
    browser.drag(CURVE, 0.4, 0.6)
    zoomed = [n for n in browser.run(ticks, where) if n is not None]
    assert max(before) - min(before) > 2500
    assert max(zoomed) - min(zoomed) < 1200
    browser.press(CURVE, "0")
    assert [n for n in browser.run(ticks, where) if n is not None] == before
    assert browser.console() == []


def test_the_pointer_reads_values(browser: Browser, page: Path) -> None:
    browser.open(page)
    said = "return document.querySelector('output[aria-live]').textContent"
    browser.hover(CURVE, 0.3)
    first = browser.run(said)
    browser.hover(CURVE, 0.8)
    second = browser.run(said)
    steps = [
        int(words.split(":")[0].removeprefix("step ").replace(",", "")) for words in (first, second)
    ]
    assert steps[0] < steps[1]
    assert "one " in first
    assert "(" in first  # the least and greatest of the bucket


def test_arrow_keys_announce_values(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(CURVE, "\ue014\ue014")  # right, twice
    said = browser.run("return document.querySelector('output[aria-live]').textContent")
    assert said.startswith("step ")
    assert "one " in said
    assert "<b>two</b> " in said


def test_keys_switch_the_scale_and_smooth(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(CURVE, "ls")
    pressed = browser.run("return document.querySelector('.tools button').ariaPressed")
    words = browser.run("return document.querySelectorAll('.tools button')[1].textContent")
    assert (pressed, words) == ("true", "smooth: 0.6")
    assert browser.console() == []
