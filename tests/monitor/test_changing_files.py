"""Files that change, or are damaged, while the monitor watches them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.monitor import scene
from tests.monitor.conftest import BIG, SMALL, press, settle, shown
from tests.monitor.test_view import choose
from vcell.monitor.keys import SCREENS


def test_a_run_that_is_removed_while_it_is_watched_leaves_the_list(view):
    choose(view, "80f1")
    for screen in SCREENS:
        view.go(screen)
        shown(view)
    shutil.rmtree(view.one.run.path)
    view.watch.clock.now += 20
    for _ in range(3):
        settle(view)
        for screen in SCREENS:
            view.go(screen)
            shown(view)
    assert "80f1" not in {run.short for run in view.listed()}


def test_a_run_that_is_made_while_the_folder_is_watched_appears(view, folder):
    scene.make_run(folder, "new-run", began=scene.NOON, process=scene.here())
    view.watch.clock.now += 2
    settle(view)
    assert "new-run" in shown(view)


def test_damaged_runs_are_named_and_the_others_shown(view, folder):
    meta = json.loads((folder / "20261126-110000-train-vcc-1f00" / "run.json").read_text())
    newer = folder / "newer"
    newer.mkdir()
    (newer / "run.json").write_text(json.dumps(meta | {"schema": 99}))
    (folder / "20261125-160000-train-vcc-ab31" / "run.json").write_text("{")
    view.watch.clock.now += 20
    settle(view)
    assert len(view.listed()) == 7
    problems = " ".join(view.watch.problems.values())
    assert "was written by a newer vcell (schema 99; this one reads 1)" in problems
    assert "is damaged" in problems
    assert "(and" in shown(view)


@pytest.mark.parametrize(
    "events", [b"", b"\n\n", b'{"t": 1, "kind": "met', b"\xff\xfe\x00", b"[]\n"]
)
def test_torn_empty_and_foreign_events_are_survived(open_view, tmp_path, events):
    path = scene.make_run(tmp_path, "odd", began=scene.NOON, process=scene.here())
    (path / "events.jsonl").write_bytes(events)
    (path / "rank-0.jsonl").write_bytes(events)
    (path / "logs" / "console.log").write_bytes(events)
    (path / "logs" / "error-1-rank-0.json").write_bytes(events)
    view = open_view(tmp_path)
    for screen in SCREENS:
        view.go(screen)
        settle(view)
        for size in (BIG, SMALL):
            assert len(shown(view, size).splitlines()) == size[1]


def test_texts_from_files_cannot_steer_the_terminal(open_view, tmp_path):
    evil = "\x1b[2J\x07evil"
    path = scene.make_run(tmp_path, "odd", began=scene.NOON, model=evil, status="failed",
                          summary={"error": evil}, config={evil: evil})  # fmt: skip
    scene.rows(
        path / "events.jsonl",
        [
            {"t": scene.NOON, "kind": "metric", "step": 1, evil: 1.0, "loss": 1.0},
            {"t": scene.NOON, "kind": "eval", "step": 1, evil: 1.0, "gain": 1.0, "best": True},
            {"t": scene.NOON, "kind": "warn", "step": 1, "text": evil},
        ],
    )
    (path / "logs" / "console.log").write_text(evil)
    view = open_view(tmp_path)
    for keys in (["1"], ["2"], ["m", "m", "m"], ["3"], ["4"], ["5"], ["d"], ["?"]):
        press(view, *keys)
        assert "\x1b" not in shown(view)
        assert "\x07" not in shown(view)
