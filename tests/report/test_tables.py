"""Tables on a telephone: numbers scroll beside their names, rows of words become blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vcell.report import Markdown, Page, Table

if TYPE_CHECKING:
    from tests.browser import Browser

METRICS = ("", "PDS", "MAE", "DES", "delta correlation", "gain", "low", "high")
SCORES = [(f"model-{i}-with-a-name", *(i + j / 7 for j in range(7))) for i in range(12)]
WORDS = [
    ("DES", "↑ more", 0.377, "differential expression score of the challenge", ""),
    ("PDS", "↑ more", 0.81, "perturbation discrimination score", "discrimination_score_l1"),
    ("MAE", "↓ less", 0.0088, "mean absolute error", "mae"),
    ("NMAE", "↓ less", None, "error of the fold changes", "de_wilcoxon_lfc_nmae"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Page("tables", "/work/shared/data/norman19_mcfaline23_devel/norman19_k562_3375x500.h5ad")
    made.headline("a result")
    made.table(METRICS, SCORES)
    made.table(("metric", "better", "raw", "meaning", "in tables"), WORDS)
    made.table(("cell", *(f"GENE{i}" for i in range(9))), [("ACGTACGTACGTACGT-1", *range(9))] * 9)
    made.table(("a", "b"), [("x", 1.0)])
    path = tmp_path_factory.mktemp("tables") / "index.html"
    made.write(path)
    return path


def kind(table: Table) -> str:
    html = table.html()
    return html.partition("<table")[2].partition(">")[0].removeprefix(' class="').rstrip('"')


def test_what_a_narrow_window_does_follows_from_the_contents() -> None:
    assert kind(Table.of(METRICS, SCORES)) == "stick"
    assert kind(Table.of(("a", "b", "c", "d", "e"), WORDS)) == "stack"
    assert kind(Table.of(("a", "b", "c", "d", "e"), WORDS * 4)) == "stack"  # one column of numbers
    many = [(*row, 0.5) for row in WORDS * 4]
    assert kind(Table.of(("a", "b", "c", "d", "e", "f"), many)) == "stick"
    assert kind(Table.of(("a", "b"), [("x", 1.0)])) == ""
    assert kind(Table.of(("", ""), [("x", "many words " * 20)])) == ""  # names and values wrap


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 700, 1200])
def test_no_table_is_cut_or_broken(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme=scheme)
    assert browser.objections() == []


def test_names_stay_while_numbers_scroll(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    lefts = browser.run(
        "const box = document.querySelector('.wide'), row = box.querySelector('tbody tr');"
        "const at = () => [...row.cells].slice(0, 2).map(c => c.getBoundingClientRect().left);"
        "const before = at(); box.scrollLeft = 120; return [before, at()]"
    )
    (name, number), (name_after, number_after) = lefts
    assert name_after == pytest.approx(name, abs=1)
    assert number_after == pytest.approx(number - 120, abs=1)


def test_blocks_have_the_heading_before_every_value(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    rows = browser.run(
        "return [...document.querySelectorAll('.stack tbody tr')].map(row =>"
        "[...row.cells].filter(c => c.getClientRects().length).map(c =>"
        "[getComputedStyle(c, '::before').content, c.textContent]))"
    )
    assert [row[0][1] for row in rows] == ["DES", "PDS", "MAE", "NMAE"]
    assert rows[1][1:] == [
        ['"better"', "↑ more"], ['"raw"', "0.81"],
        ['"meaning"', "perturbation discrimination score"],
        ['"in tables"', "discrimination_score_l1"],
    ]  # fmt: skip
    assert [heading for heading, _ in rows[0]][-1] == '"meaning"'  # nothing of an empty cell
    assert rows[3][2] == ['"raw"', "–"]


def test_a_long_path_breaks_only_behind_its_separators(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    lines = browser.run(
        "const range = document.createRange(), tops = {};"
        "const walk = document.createTreeWalker(document.querySelector('.sub'), 4);"
        "for (let node; (node = walk.nextNode());)"
        "  for (let i = 0; i < node.data.length; i++) {"
        "    range.setStart(node, i); range.setEnd(node, i + 1);"
        "    const top = Math.round(range.getBoundingClientRect().top);"
        "    tops[top] = (tops[top] ?? '') + node.data[i];"
        "  }"
        "return Object.values(tops)"
    )
    assert len(lines) > 1
    assert all(line[-1] in "/_" for line in lines[:-1])


def test_a_folded_table_has_its_title_in_markdown_too() -> None:
    text = Markdown("a run")
    text.table(("model", "MAE"), [("mean", 0.5), ("ridge", 0.25)], "without own genes")
    assert "Without own genes:\n\n| model | MAE |" in text.markdown()
    assert "| mean | 0.50 |" in text.markdown()
