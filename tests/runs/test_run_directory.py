"""Run directories stay readable whatever happens to their writer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcell.errors import DiskFull, UserError
from vcell.runs import EventLog, Run, Tail, find_runs, remove
from vcell.runs import process as processes


def new(tmp_path: Path, **more) -> Run:
    return Run.create(tmp_path / "runs", "toy", config={"lr": 0.1, "path": Path("x")}, **more)


def put(text: str):
    return lambda folder: (folder / "model.txt").write_text(text)


# --- creating and opening


def test_a_run_that_was_copied_took_no_longer(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1, loss=0.5)
    run.finish("done")
    before, later = run.last_sign(), time.time() + 3600
    for name in ("run.json", "events.jsonl"):
        os.utime(run.path / name, (later, later))
    assert run.last_sign() < before + 2


def test_a_new_run_says_what_it_is(tmp_path):
    run = new(tmp_path, provenance={"lr": "command line"}, seed=3, data=[{"path": "a.h5ad"}])
    meta = json.loads((run.path / "run.json").read_text())
    assert meta["schema"] == 1
    assert meta["config"] == {"lr": 0.1, "path": "x"}
    assert meta["provenance"] == {"lr": "command line"}
    assert (meta["seed"], meta["data"]) == (3, [{"path": "a.h5ad"}])
    assert meta["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run.name.endswith(f"-toy-{run.name[-4:]}")
    assert run.status() == "running"


def test_runs_made_at_once_get_names_of_their_own(tmp_path):
    names = {new(tmp_path).name for _ in range(30)}
    assert len(names) == 30


def test_a_run_is_opened_by_path_name_beginning_and_as_the_latest(tmp_path):
    first, last = new(tmp_path), new(tmp_path)
    root = tmp_path / "runs"
    assert Run.open(first.path).name == first.name
    assert Run.open(first.name, root).name == first.name
    assert Run.open(last.name[:-1], root).name in (first.name, last.name)
    os.utime(last.path / "logs", (time.time() + 5, time.time() + 5))
    assert Run.open("latest", root).name == last.name


@pytest.mark.parametrize("name", ["../outside", "..", "/etc", "", "a/b", "no-such-run"])
def test_names_reach_nothing_outside_the_folder_of_runs(tmp_path, name):
    new(tmp_path)
    (tmp_path / "outside").mkdir()
    with pytest.raises(UserError):
        Run.open(name, tmp_path / "runs")


def test_a_newer_schema_is_refused_and_an_older_one_is_read(tmp_path):
    run = new(tmp_path)
    run.update(schema=99)
    with pytest.raises(UserError, match="newer vcell"):
        Run.open(run.path)
    run.update(schema=0)
    assert Run.open(run.path).name == run.name


@settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["schema", "status", "process", "config", "created", "summary", "pid", "host"]), inner),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_run_json_whatsoever_ends_in_a_traceback(tmp_path, raw):
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_bytes(raw)
    runs, problems = find_runs(tmp_path / "runs")
    assert len(runs) + len(problems) == 1
    for run in runs:
        assert run.status() in ("running", "stalled", "crashed", "done", "failed", "interrupted")


# --- events


def test_events_are_read_back_as_they_were_written(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1, loss=0.5, note="ü\n", nested={"a": [1, float("inf")]})
    run.log("phase", name="x")
    first, second = run.events()
    assert first == first | {"kind": "metric", "step": 1, "loss": 0.5, "note": "ü\n"}
    assert first["nested"] == {"a": [1, None]}
    assert "step" not in second
    assert [e["kind"] for e in run.events({"phase"})] == ["phase"]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_last_line_is_skipped_and_the_next_writer_starts_afresh(tmp_path, cut):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.log("metric", step=1, loss=0.25)
        log.log("metric", step=2, loss=0.125)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [e["step"] for e in Tail(path).read()] == [1]
    with EventLog(path) as log:
        log.log("metric", step=3)
    assert [e["step"] for e in Tail(path).read()][-1] == 3
    assert len(Tail(path).read()) in (2, 3)  # cut by one byte, line 2 is whole but for its end


def test_a_tail_returns_each_event_once_while_the_file_grows(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    seen = []
    with EventLog(path) as log:
        for step in range(50):
            log.log("metric", step=step)
            if step % 7 == 0:
                seen += tail.read()
    with path.open("ab") as stream:
        stream.write(b'{"t": 1, "kind": "met')
        stream.flush()
        seen += tail.read()
        stream.write(b'ric", "step": 50}\n')
    seen += tail.read()
    assert [event["step"] for event in seen] == list(range(51))
    assert Tail(path, tail.offset).read() == []


def test_a_resumed_run_forgets_the_branch_it_left(tmp_path):
    run = new(tmp_path)
    for step in range(1, 6):
        run.log("metric", step=step, loss=step)
    run.log("resume", step=3)
    run.log("metric", step=4, loss=40)
    assert [(e["step"], e["loss"]) for e in run.events({"metric"})] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 40),
    ]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(
    [b'{"t":1,"kind":"metric","step":2}', b'{"t":1,"kind":"resume","step":"x"}', b"[1]", b"{}",
     b'{"t":"x","kind":"end"}', b'{"t":1,"kind":3}', b"[" * 100_000])), max_size=6))  # fmt: skip
def test_no_events_whatsoever_end_in_a_traceback(tmp_path, lines):
    run = Run.create(tmp_path / "runs", "toy")
    (run.path / "events.jsonl").write_bytes(b"\n".join(lines))
    for event in run.events():
        assert isinstance(event["kind"], str)


# --- files of the run's own


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    run = new(tmp_path)
    assert run.save_file("screen.txt", lambda path: path.write_text("all")).read_text() == "all"

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match="no space"):
        run.save_file("screen.txt", fail)
    assert (run.path / "screen.txt").read_text() == "all"
    assert not list(run.path.glob("*.tmp-*"))


# --- requests


def test_requests_are_files_that_the_trainer_polls(tmp_path):
    run = new(tmp_path)
    assert run.requests() == set()
    Run.open(run.path).request("stop")
    run.request("checkpoint")
    assert run.requests() == {"stop", "checkpoint"}
    run.clear("checkpoint")
    assert run.requests() == {"stop"}
    with pytest.raises(UserError, match="not to 'explode'"):
        run.request("explode")


# --- status


def test_a_run_ends_with_what_came_of_it(tmp_path):
    run = new(tmp_path)
    run.finish("done", pds=0.7)
    again = Run.open(run.path)
    assert (again.status(), again.meta["summary"]) == ("done", {"pds": 0.7})
    assert again.events({"end"})[0]["status"] == "done"


def test_a_killed_writer_is_seen_as_crashed_at_once(tmp_path):
    run = new(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    run.update(process=processes.identity(child.pid))
    assert Run.open(run.path).status() == "running"
    child.kill()
    child.wait()
    assert Run.open(run.path).status() == "crashed"


def test_another_process_of_the_same_number_is_not_mistaken_for_the_writer(tmp_path):
    run = new(tmp_path)
    run.update(process=processes.identity() | {"started": "1"})
    assert run.status() == "crashed"


def test_silence_is_a_stall(tmp_path):
    run = new(tmp_path)
    run.log("metric", step=1)
    long_ago = time.time() - 3600
    for name in ("events.jsonl", "run.json"):
        os.utime(run.path / name, (long_ago, long_ago))
    assert run.status() == "stalled"


def test_a_run_that_is_being_written_cannot_be_claimed(tmp_path):
    run = new(tmp_path)
    run.claim()  # by its own process, it can
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        run.update(process=processes.identity(child.pid))
        with pytest.raises(UserError, match=f"process {child.pid}"):
            Run.open(run.path).claim()
    finally:
        child.kill()
        child.wait()
    again = Run.open(run.path)
    again.claim()
    assert again.status() == "running"


# --- kill -9

_WRITER = """
import sys
from pathlib import Path
from vcell.runs import Run
run = Run.open(Path(sys.argv[1]))
run.claim()
step = max(run.checkpoints(), default=0)
if run.events():  # on a busy machine perhaps killed before the first checkpoint
    run.log("resume", step=step)
print("up", flush=True)
while True:
    step += 1
    run.log("metric", step=step, loss=1 / step, text="x" * 200)
    if step % 5 == 0:
        run.save_checkpoint(step, lambda f: (f / "w").write_text(str(step) * 1000), metric=1 / step)
    run.update(step=step)
    print(step, flush=True)
"""


@pytest.mark.parametrize("times", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_leaves_a_readable_directory(tmp_path, times):
    chance = random.Random(0)
    run = new(tmp_path)
    run.update(process=processes.identity() | {"started": "1"})  # not this process, which lives on
    reached = 0
    for _ in range(times):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(run.path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "up\n"
        for _ in range(chance.randrange(12)):  # steps, however busy the machine is
            writer.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.01))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = Run.open(run.path)
        assert found.status() == "crashed"
        steps = [event["step"] for event in found.events({"metric"})]
        assert steps == list(range(1, len(steps) + 1)), "a step is lost or doubled"
        for step in found.checkpoints():
            found.checkpoint(step).verify()
        if found.checkpoints():
            latest = found.checkpoint("latest")
            assert (latest.path / "w").read_text() == str(latest.step) * 1000
            assert latest.step >= reached
            reached = latest.step
    assert reached > 0
    assert list(run.path.glob("ckpt/step-*")), "nothing was ever saved"


# --- the command


def test_listing_showing_comparing_and_removing(vcell, tmp_path):
    first, second = new(tmp_path), new(tmp_path)
    first.log("metric", step=7, loss=0.5)
    first.save_checkpoint(7, put("x"), metric=0.5)
    first.update(model="gmvae")
    first.finish("done", score=0.9, held_out={"gmvae": {"macro_f1": 0.8}})
    second.update(config={"lr": 0.2, "path": "x"})
    second.finish("failed")
    listed = vcell("runs", "list", "--json").json["runs"]
    assert [(r["run"], r["status"]) for r in sorted(listed, key=lambda r: r["run"])] == sorted(
        [(first.name, "done"), (second.name, "failed")]
    )
    shown = vcell("runs", "show", first.name)
    assert "0.9" in shown.out
    assert vcell("runs", "show", first.name, "--json").json["checkpoints"] == [7]
    compared = vcell("runs", "compare", first.name, second.name, "--json").json
    assert compared["held_out"]["macro-F1 (1 is best)"] == [0.8, None]
    assert compared["settings"] == {"lr": [0.1, 0.2]}  # "path" is a setting of one of them
    assert vcell("runs", "rm", first.name).code == 0
    assert not first.path.exists()
    assert second.path.exists()


def test_what_is_no_run_is_never_removed(vcell, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("x")
    for name in ("precious", "./precious", str(tmp_path / "precious")):
        ran = vcell("runs", "rm", "--force", name)
        assert ran.code == 2
        assert (tmp_path / "precious" / "data").exists()


def test_a_run_in_use_is_removed_only_by_force(vcell, tmp_path):
    run = new(tmp_path)  # written by this very process
    assert vcell("runs", "rm", run.name).code == 2
    assert vcell("runs", "rm", "--force", run.name).code == 0
    assert not run.path.exists()


def test_no_runs_and_damaged_runs_are_told(vcell, tmp_path):
    assert "no runs" in vcell("runs", "list").out
    run = new(tmp_path)
    (run.path / "run.json").write_text("{")
    listed = vcell("runs", "list")
    assert listed.code == 0
    assert "run.json: is damaged" in listed.err
    assert vcell("runs", "show", run.name).code == 2


def test_removing_twice_is_harmless(tmp_path):
    run = new(tmp_path)
    remove(run)
    assert find_runs(tmp_path / "runs") == ([], [])


def test_weights_can_be_read_by_whom_other_files_can_be_read(tmp_path):
    """safetensors makes files that only their owner can read."""
    import numpy as np
    from safetensors.numpy import save_file

    def write(path):
        save_file({"x": np.zeros(3)}, str(path))

    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    run = Run.create(tmp_path, "train")
    assert run.save_file("x.safetensors", write).stat().st_mode == usual
    made = run.save_checkpoint(1, lambda folder: write(folder / "x.safetensors"))
    assert (made / "x.safetensors").stat().st_mode == usual
