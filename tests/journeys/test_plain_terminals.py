"""A plain terminal over ssh: 80 columns, no escape codes, no UTF-8."""

from __future__ import annotations

import json

import pytest

from tests.journeys.terminal import WITHOUT_UTF8, on_terminal, piped
from vcell import console, tables

SHOWS = {
    "help": ("--help",),
    "help of a command": ("train-vcc", "--help"),
    "plugins": ("plugins",),
    "settings": ("config", "show", "train-vcc"),
    "runs": ("runs", "list"),
    "one run": ("runs", "show", "latest"),
    "two runs": ("runs", "compare", "first", "second"),
    "cells": ("inspect", "cells.h5ad"),
}


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", SHOWS)
def test_nothing_is_wider_than_the_terminal(project, name, columns):
    shown = on_terminal(*SHOWS[name], cwd=project, columns=columns)
    assert shown.code == 0, shown.plain
    assert len(shown.widest) <= columns, shown.widest


@pytest.mark.parametrize("locale", WITHOUT_UTF8)
@pytest.mark.parametrize("name", ["help", "plugins", "one run", "cells"])
def test_a_locale_without_utf8_gets_ascii(project, locale, name):
    ran = piped(*SHOWS[name], cwd=project, **WITHOUT_UTF8[locale])
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout + ran.stderr).isascii()
    assert b"\\u" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("locale", WITHOUT_UTF8)
def test_names_that_a_terminal_cannot_show_are_spelt_out(project, locale):
    ran = piped("inspect", "ünïcode.h5ad", cwd=project, **WITHOUT_UTF8[locale])
    assert ran.returncode == 0, ran.stderr
    assert b"Traceback" not in ran.stderr


def test_a_dumb_terminal_gets_no_escape_codes(project):
    for words in (("inspect", "cells.h5ad"), ("inspect", "missing.h5ad"), ("--help",)):
        shown = on_terminal(*words, cwd=project, TERM="dumb", NO_COLOR="")
        assert "\x1b" not in shown.text
    shown = on_terminal("inspect", "missing.h5ad", cwd=project, NO_COLOR="")
    assert "\x1b" in shown.text  # where they are understood, errors are red


def test_a_pipe_gets_whole_lines_and_json_is_json(project):
    ran = piped("config", "show", "train-vcc", cwd=project, COLUMNS="")
    heads = ran.stdout.decode().splitlines()
    assert any(len(line) > 80 for line in heads), "nothing is wrapped where nobody looks"
    assert json.loads(piped("runs", "list", "--json", cwd=project).stdout)["runs"]


ROWS = [("train-vcc", "a-rather-long-value-without-a-blank " * 3, 1.5), ("b", "short", None)]
HEADS = ["command", "a column of words", "score"]


def test_tables_wrap_their_words_and_keep_their_numbers():
    text = console.table(ROWS, HEADS, width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert "1.5" in text.splitlines()[2]
    assert console.table(ROWS, HEADS, width=None if False else 200).count("\n") == 3


def test_tables_with_no_room_are_stacked():
    text = console.table(ROWS, HEADS, width=24)
    assert max(map(len, text.splitlines())) <= 24
    assert "score" in text
    assert text.count("command") == 2


def test_a_table_of_wide_letters_is_aligned():
    lines = tables.lay_out([["遺伝子", "1"], ["a", "22"]], ["name", "n"], None).splitlines()
    assert {tables.shown(line) for line in lines[1:]} == {tables.shown(lines[1])}


@pytest.mark.parametrize(("n", "text"), [(1, "1 cell"), (0, "0 cells"), (2000, "2,000 cells")])
def test_one_item_is_singular(n, text):
    assert console.count(n, "cell") == text
