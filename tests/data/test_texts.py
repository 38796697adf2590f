"""Names and columns of text held in little memory are the strings of the file."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.data import texts
from vcell.data.column import Column
from vcell.data.texts import Texts, join

NAMES = np.array(["b", "", "Zürich", "日本", "b", "a\x00c", "cell-1"], object)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "PIECE", 2)
    monkeypatch.setattr(texts, "LETTERS", 5)


def test_indexed_as_an_array() -> None:
    held = Texts.of(NAMES)
    assert len(held) == 7
    assert held[2] == "Zürich"
    assert held[-1] == held[np.int64(6)] == "cell-1"
    assert held[1:4].tolist() == NAMES[1:4].tolist()
    rows = np.array([6, 0, 0, 3])
    assert held[rows].tolist() == NAMES[rows].tolist()
    assert held[NAMES == "b"].tolist() == ["b", "b"]
    assert held.tolist() == list(held) == NAMES.tolist()
    assert np.asarray(held, np.str_).tolist() == NAMES.tolist()
    assert [len(piece) for piece in held.pieces(rows)] == [2, 2]


def test_beyond_the_last_is_an_error() -> None:
    with pytest.raises(IndexError):
        _ = Texts.of(NAMES)[7]


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    held = Texts.of(np.array([b"ok", "é".encode(), b"\xff!"], object))
    assert held.tolist() == ["ok", "é", "\ufffd!"]


def test_strings_of_numpy_are_text_not_buffers() -> None:
    """An array of objects may hold `numpy.str_`, whose buffer has four bytes a letter."""
    names = np.array([np.str_("ENSG00000000419"), np.str_("b")], object)
    assert Texts.of(names).tolist() == ["ENSG00000000419", "b"]


def test_none_at_all() -> None:
    held = Texts.of(np.empty(0, object))
    assert len(held) == 0
    assert held.tolist() == []
    assert [len(part) for part in held.factorise()] == [0, 0]
    assert len(held.hashes()) == held.n_different() == held.n_blank() == 0


def test_joined() -> None:
    assert join([Texts.of(NAMES), Texts.of(NAMES[:1])]).tolist() == [*NAMES, "b"]


def test_codes_are_those_of_a_column_of_strings() -> None:
    compact, plain = Column("x", texts=Texts.of(NAMES)), Column("x", values=NAMES)
    assert compact.kind == plain.kind == "string"
    assert compact.categories.tolist() == plain.categories.tolist()
    assert compact.codes.tolist() == plain.codes.tolist()
    assert compact.values.tolist() == plain.values.tolist()
    assert compact.counts().tolist() == plain.counts().tolist()
    assert Texts.of(NAMES).n_different() == 6


@pytest.mark.parametrize("letters", [1, 5, 1 << 18])
def test_strings_have_equal_hashes_if_and_only_if_they_are_equal(
    letters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "LETTERS", letters)
    rng = np.random.default_rng(0)
    some = ["", "", "\x00", "\x00\x00", "ab", "ba", "é", "long" * 300, *map(str, range(300))]
    some += ["".join(rng.choice(list("ACGT"), rng.integers(1, 6))) for _ in range(600)]
    for names in (some, [""], ["", "", "x"], ["x", "", ""]):
        held = Texts.of(np.array(names, object))
        hashes = held.hashes().tolist()
        pairs = set(zip(names, hashes, strict=True))
        assert len(pairs) == len(set(names)) == len(set(hashes)) == held.n_different()


def test_blank_strings_are_counted_as_python_strips_them() -> None:
    blank = ["", " ", "\t \n", "\x1c", "\x85", "\xa0", "\u2003\u3000"]
    held = Texts.of(np.array([*blank, "a", " a", "\x00", "\x08", "é", "\u200b", "日 "], object))
    assert held.n_blank() == len(blank) == sum(not text.strip() for text in held)
