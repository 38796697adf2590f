"""The one reader of events: columns that follow a growing, resumed, shrunken or replaced file."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcell.runs import EventLog, History, Run, Tail
from vcell.runs.event_file import EventFile, surviving


def new(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "toy")


def line(kind: str, step: int | None = None, t: float = 0.0, **fields) -> bytes:
    event = {"t": t, "kind": kind, "step": step, **fields}
    return json.dumps({k: v for k, v in event.items() if v is not None}).encode() + b"\n"


# --- columns


def test_metrics_become_columns_with_their_steps_and_times(tmp_path):
    run = new(tmp_path)
    for step in (1, 2, 3):
        run.log("metric", step=step, loss=1 / step, lr=0.1)
    run.log("eval", step=3, pds=0.5, best=True)
    history = run.history()
    steps, times, values = history.series("loss")
    assert (list(steps), list(values)) == ([1, 2, 3], [1.0, 0.5, 1 / 3])
    assert list(times) == sorted(times)
    assert history.names() == ["loss", "lr"]
    assert history.last() == {"loss": 1 / 3, "lr": 0.1}
    assert list(history.series("pds", "eval").values) == [0.5]
    assert len(history.series("nothing").values) == 0
    assert history.step == 3


def test_what_an_event_lacks_is_nan_whenever_a_column_begins(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1, loss=1.0)
    run.log("metric", step=2, loss=float("nan"), late=2.0)
    run.log("metric", step=3, late=3.0)
    history = run.history()
    assert [math.isnan(v) for v in history.series("loss").values] == [False, True, True]
    assert [math.isnan(v) for v in history.series("late").values] == [True, False, False]
    assert history.series("loss").last == 1.0


def test_texts_and_lists_of_texts_are_kept_as_words(tmp_path):
    run = new(tmp_path)
    with run.rank_log(0) as log:
        log.log("gpu", watts=300.0, throttle=["power", "heat"])
        log.log("gpu", watts=310.0, throttle=[])
        log.log("gpu", watts=310.0, throttle=["power", "heat"])
    table = run.history().devices()[0]
    assert [table.row(i)["throttle"] for i in range(3)] == ["power,heat", "", "power,heat"]
    assert table.last() == {"watts": 310.0, "throttle": "power,heat"}


def test_the_best_validation_is_the_last_that_the_run_marked(tmp_path):
    run = new(tmp_path)
    assert run.history().best("gain") is None
    for step, gain, best in ((1, 0.1, True), (2, 0.3, True), (3, 0.2, False)):
        run.log("eval", step=step, gain=gain, best=best)
    found = run.history().best("gain")
    assert (found.step, found.value) == (2, 0.3)


def test_spans_are_means_over_ranks_with_the_rest_named_other(tmp_path):
    run = new(tmp_path)
    for rank in (0, 1):
        with run.rank_log(rank) as log:
            for step in range(1, 11):
                log.log(
                    "span", step=step, examples=4, seconds=1.0, data=0.2 + 0.2 * rank, forward=0.5
                )
    history = run.history()
    assert history.spans() == pytest.approx({"data": 0.3, "forward": 0.5, "other": 0.2, "total": 1})
    assert history.spans(rank=1)["data"] == pytest.approx(0.4)
    assert run.history(ranks=False).spans() == {}


def test_energy_is_counted_while_the_run_had_the_gpu(tmp_path):
    counted = [(0, 100.0), (5, 150.0), (10, 200.0), (5000, 9000.0), (5005, 9060.0), (5010, 10.0)]
    lines = [line("gpu", t=float(t), energy_j=joules) for t, joules in counted]
    (tmp_path / "rank-0.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "rank-1.jsonl").write_bytes(b"".join(lines[:2]) + line("gpu", t=6.0, watts=1.0))
    history = History(tmp_path)
    assert history.energy() is None
    history.read()
    # not what others drew while it was interrupted, nor a counter that began again
    assert history.energy() == 100 + 60 + 50


def test_time_trained_leaves_out_pauses_and_interruptions(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        line("metric", 1, 100.0, loss=1)
        + line("phase", 1, 101.0, name="paused")
        + line("phase", 1, 161.0, name="paused")  # a sign of life
        + line("phase", 1, 201.0, name="training")
        + line("metric", 2, 202.0, loss=1)
        + line("metric", 3, 203.0, loss=1)
        + line("resume", 2, 1000.0)
        + line("metric", 3, 1001.0, loss=1)
    )
    history = History(tmp_path)
    history.read()
    assert history.seconds(history.table("metric").times) == [0.0, 2.0, 3.0]
    assert history.state() == "training"
    assert history.rate() == pytest.approx(1.5)


# --- following


def test_a_history_takes_in_what_is_new_and_says_whether_anything_is(tmp_path):
    run = new(tmp_path)
    history = run.history()
    assert history.read() is False
    run.log("metric", step=1, loss=1.0)
    with run.rank_log(1) as log:
        log.log("warn", step=1, text="odd")
    assert history.read() is True
    assert history.read() is False
    assert [(note["rank"], note["text"]) for note in history.notes("warn")] == [(1, "odd")]


def test_reading_in_pieces_gives_the_same_as_reading_at_once(tmp_path):
    run = new(tmp_path)
    for step in range(30_000):
        run.log("metric", step=step, loss=step / 7)
    whole, pieces, shares = run.history(), History(run.path), []
    while pieces.read(limit=1) and pieces.loaded < 1:
        shares.append(pieces.loaded)
    assert shares == sorted(set(shares))
    assert pieces.series("loss") == whole.series("loss")


def test_an_incomplete_last_line_does_not_keep_a_history_from_being_all_read(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(line("metric", 1, 1.0, loss=1.0) + b'{"t":2,"kind":"me')
    history = History(tmp_path)
    assert history.read(limit=1)
    history.read(limit=1)
    assert history.loaded == 1
    with (tmp_path / "events.jsonl").open("ab") as stream:
        stream.write(b'tric","step":2,"loss":2.0}\n')
    assert history.read()
    assert list(history.series("loss").values) == [1.0, 2.0]


def test_the_end_of_a_long_file_is_read_alone_from_its_first_whole_line(tmp_path):
    run = new(tmp_path)
    for step in range(5000):
        run.log("metric", step=step, loss=1.0)
    end = History(run.path, end=4096)
    end.read()
    steps = end.series("loss").steps
    assert 10 < len(steps) < 100
    assert list(steps) == list(range(5000 - len(steps), 5000))
    run.log("metric", step=5000, loss=1.0)
    assert end.read()
    assert end.step == 5000


def test_the_branch_that_a_resumed_run_left_is_dropped_everywhere(tmp_path):
    run = new(tmp_path)
    history = run.history()
    with run.rank_log(0) as log:
        for step in range(1, 6):
            run.log("metric", step=step, loss=float(step))
            log.log("span", step=step, seconds=float(step))
            log.log("gpu", watts=float(step))
        run.log("warn", step=5, text="late")
        run.log("warn", step=2, text="early")
        assert history.read()
        run.log("resume", step=3)
        log.log("resume", step=3)
        run.log("metric", step=4, loss=40.0)
        log.log("span", step=4, seconds=40.0)
    history.read()
    for each in (history, run.history()):  # while it happened, and afterwards
        assert list(each.series("loss").values) == [1, 2, 3, 40]
        assert list(each.ranks[0].tables["span"].columns["seconds"]) == [1, 2, 3, 40]
        assert [note["text"] for note in each.notes("warn")] == ["early"]
        # what was drawn was drawn, whatever became of the steps
        assert list(each.devices()[0].columns["watts"]) == [1, 2, 3, 4, 5]


events = st.one_of(
    st.tuples(st.just("metric"), st.integers(0, 9)),
    st.tuples(st.just("resume"), st.integers(0, 9)),
    st.tuples(st.just("warn"), st.integers(0, 9)),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(events, max_size=30))
def test_columns_and_lists_agree_on_what_survives(tmp_path, happened):
    lines = [line(kind, step, t, n=t) for t, (kind, step) in enumerate(happened)]
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines))
    file = EventFile(tmp_path / "events.jsonl")
    file.read()
    kept = surviving([json.loads(one) for one in lines])
    assert list(file.tables["metric"].columns.get("n", [])) == [
        event["n"] for event in kept if event["kind"] == "metric"
    ]
    assert [e["n"] for e in file.others] == [e["n"] for e in kept if e["kind"] != "metric"]


# --- files that are not what they were


def test_a_file_that_looks_shorter_for_a_moment_repeats_nothing(tmp_path):
    path = tmp_path / "events.jsonl"
    whole = b"".join(line("metric", step, float(step), loss=1.0) for step in range(100))
    path.write_bytes(whole)
    tail, history = Tail(path), History(tmp_path)
    assert len(tail.read()) == 100
    history.read()
    for cut in (len(whole) // 2, len(whole) - 10, 0):
        path.write_bytes(whole[:cut])
        assert tail.read() == []
        assert history.read() is False
    path.write_bytes(whole + line("metric", 100, 100.0, loss=1.0))
    assert [event["step"] for event in tail.read()] == [100]
    assert history.read()
    assert list(history.series("loss").steps) == list(range(101))
    assert tail.resets == history.resets == 0


@pytest.mark.parametrize("rows", [3, 100, 500])
def test_another_file_of_the_same_name_is_read_anew_and_that_is_said(tmp_path, rows):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line("metric", s, float(s), loss=1.0) for s in range(100)))
    tail, history = Tail(path), History(tmp_path)
    tail.read()
    history.read()
    path.write_bytes(b"".join(line("metric", s, s + 0.5, loss=2.0) for s in range(rows)))
    assert [event["step"] for event in tail.read()] == list(range(rows))
    assert history.read()
    assert (tail.resets, history.resets) == (1, 1)
    assert list(history.series("loss").values) == [2.0] * rows


def test_a_run_that_is_removed_while_it_is_read_has_nothing_new(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1, loss=1.0)
    history = run.history()
    (run.path / "events.jsonl").unlink()
    assert history.read() is False
    run.path.rename(tmp_path / "gone")
    assert history.read() is False
    assert list(history.series("loss").values) == [1.0]


@pytest.mark.parametrize("foreign", [b"", b"{", b'{"t":1,"kind":"metric","step', b"[1]", b"\xff"])
def test_foreign_lines_among_the_events_cost_only_themselves(tmp_path, foreign):
    path = tmp_path / "events.jsonl"
    good = [line("metric", step, 1.0, loss=1.0) for step in range(20)]
    path.write_bytes(b"".join(good[:10]) + foreign + b"\n" + b"".join(good[10:]))
    history = History(tmp_path)
    history.read()
    assert list(history.series("loss").steps) == list(range(20))


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=2), st.just({"a": 1}),
)  # fmt: skip


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["metric", "eval", "span", "gpu", "resume", "phase", "warn", "x"]),
            st.dictionaries(st.sampled_from(["step", "loss", "name", "best", "seconds"]), values),
        ),
        max_size=12,
    )
)
def test_no_events_whatsoever_end_in_a_traceback(tmp_path, happened):
    for name in ("events.jsonl", "rank-0.jsonl"):
        lines = [json.dumps({"t": i, "kind": k, **more}) for i, (k, more) in enumerate(happened)]
        (tmp_path / name).write_text("\n".join(lines))
    history = History(tmp_path)
    history.read()
    for kind in ("metric", "eval"):
        columns = history.table(kind).columns.values()
        assert {len(column) for column in columns} <= {len(history.table(kind))}
        history.last(kind)
    history.best("loss"), history.spans(), history.notes(), history.state(), history.step
    history.seconds(history.table("metric").times)


def test_numbers_beyond_all_bounds_and_endless_names_are_survived(tmp_path):
    huge = b'{"t":1,"kind":"metric","step":1' + b"0" * 400 + b',"loss":1' + b"0" * 400 + b"}\n"
    wild = [line("metric", 2, 1.0, **{f"n{i}": 1.0}) for i in range(3000)]
    (tmp_path / "events.jsonl").write_bytes(huge + b"".join(wild))
    history = History(tmp_path)
    history.read()
    assert len(history.table("metric")) == 3001
    assert len(history.names()) <= 512


# --- cost


@pytest.mark.slow
def test_38_megabytes_of_events_become_columns_within_its_limits(tmp_path):
    rng = random.Random(0)
    with EventLog(tmp_path / "events.jsonl") as log:
        for step in range(200_000):
            log.log("metric", step=step, loss=rng.random(), mmd=rng.random(), lr=1e-3,
                    grad_norm=rng.random(), examples_per_s=44.0, data_wait=0.03)  # fmt: skip
    size = (tmp_path / "events.jsonl").stat().st_size
    assert size > 28e6
    code = """
import resource, sys, time
from pathlib import Path
from vcell.runs import History
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
history = History(Path(sys.argv[1]))
history.read()
assert len(history.table("metric")) == 200_000
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(time.process_time() - begun, peak / 1024)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    seconds, mebibytes = map(float, subprocess.check_output(words, text=True).split())
    assert seconds < 2.5 * size / 38e6
    assert mebibytes < 60


def test_a_thousand_quiet_looks_cost_next_to_nothing(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1, loss=1.0)
    history = run.history()
    begun = time.process_time()
    for _ in range(1000):
        history.read()
    assert time.process_time() - begun < 1.0  # a millisecond a look, ten times what it takes


def test_only_recent_spans_are_read_where_no_more_is_needed(tmp_path):
    run = Run.create(tmp_path, "toy")
    with run.rank_log(0) as log:
        for step in range(1, 20_001):
            log.log("span", step=step, seconds=0.5 if step < 19_000 else 0.1, forward=0.05)
            if step % 100 == 0:
                log.log("gpu", energy_j=float(step))
    whole, recent = run.history(), run.history(recent_spans=True)
    assert recent.spans() == whole.spans()
    assert len(recent.ranks[0].tables["span"]) < 20_000 == len(whole.ranks[0].tables["span"])
    assert len(recent.ranks[0].tables["gpu"]) == 200
    assert recent.energy() == whole.energy()
