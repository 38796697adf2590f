"""``vcell monitor --once``, and what is refused, through the real command line."""

from __future__ import annotations

import os

import pytest
from vcell_monitor.work import speaks_utf8

from tests.monitor import scene
from vcell.monitor.overview import STATES


@pytest.fixture
def runs(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return scene.folder(folder)


def test_once_prints_a_document_of_all_runs(vcell, runs):
    done = vcell("monitor", "--once", "--json")
    assert done.code == 0
    found = {run["run"][-4:]: run for run in done.json["runs"]}
    assert len(found) == 8
    assert {run["status"] for run in found.values()} <= set(STATES)
    one = found["80f1"]
    assert (one["step"], one["max_steps"], one["monitor"]) == (620, 1000, "gain")
    assert one["eta_s"] is None or one["eta_s"] == pytest.approx(380 * 0.36, rel=0.01)
    assert {"run", "status", "step", "max_steps", "loss", "best", "eta_s"} <= one.keys()
    assert any("09ee" in problem for problem in done.json["problems"])


def test_once_prints_a_table_of_the_runs_that_fit(vcell, runs):
    done = vcell("monitor", "runs", "--once", "--filter", "model:gp")
    assert "1f00" in done.out
    assert "80f1" not in done.out


def test_one_run_is_named_by_the_end_of_a_path_or_by_its_name(vcell, runs):
    name = "20261126-110000-train-vcc-1f00"
    for word in (f"runs/{name}", name, "20261126-11"):
        done = vcell("monitor", word, "--once", "--json")
        assert [run["run"] for run in done.json["runs"]] == [name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs"], "vcell monitor needs a terminal, and there is none here"),
        (["nowhere", "--once"], "nowhere"),
        ([os.devnull, "--once"], "there is no such folder"),
        (["--replay", "20261128-0931", "--once"], "leave out PATH and --once"),
        (["--once", "--filter", "status:asleep"], "no run can be 'asleep'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(vcell, runs, words, said):
    done = vcell("monitor", *words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("environment", "speaks"),
    [
        ({"LANG": "en_GB.UTF-8"}, True),
        ({"LC_ALL": "C", "LANG": "en_GB.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),  # as Python makes of LANG=C
        ({"LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({}, False),
    ],
)
def test_braille_is_drawn_where_the_locale_is_of_utf8(environment, speaks):
    assert speaks_utf8(environment) is speaks
