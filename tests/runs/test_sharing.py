"""Several readers and writers of one folder of runs, and what damage must not do."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vcell.errors import UserError
from vcell.runs import Run, Tail, find_runs
from vcell.runs import process as processes

block = Tail._block


def new(tmp_path: Path, **more) -> Run:
    return Run.create(tmp_path / "runs", "toy", **more)


def python(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True
    )


# --- at the same time


def test_runs_made_by_many_at_once_never_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new(tmp_path).path, range(40)))
    assert len(set(made)) == 40


def test_a_tail_follows_another_process_and_misses_nothing(tmp_path):
    path = tmp_path / "events.jsonl"
    code = """
import sys
from pathlib import Path
from vcell.runs import EventLog
with EventLog(Path(sys.argv[1])) as log:
    for step in range(5000):
        log.log("metric", step=step, text="x" * (step % 300))
"""
    tail, seen = Tail(path), []
    with python(code, path) as writer:
        while writer.poll() is None:
            seen += tail.read()
        seen += tail.read()
    assert [event["step"] for event in seen] == list(range(5000))


def test_of_two_that_resume_at_once_one_is_refused(tmp_path):
    code = """
import sys, time
from pathlib import Path
from vcell.errors import UserError
from vcell.runs import Run
run = Run.open(Path(sys.argv[1]))
print("up", flush=True)
while not Path(sys.argv[2]).exists():
    pass
try:
    run.claim()
    print("mine", flush=True)
    time.sleep(3600)
except UserError:
    print("theirs", flush=True)
"""
    run = new(tmp_path)
    run.finish("interrupted")
    for attempt in range(3):
        go = tmp_path / f"go-{attempt}"
        both = [python(code, run.path, go) for _ in range(2)]
        assert [p.stdout.readline() for p in both] == ["up\n", "up\n"]
        go.touch()
        answers = [p.stdout.readline() for p in both]
        for process in both:
            process.kill()
            process.communicate()
        assert sorted(answers) == ["mine\n", "theirs\n"]


def test_a_run_that_ends_while_it_is_watched_is_not_called_crashed(tmp_path):
    run = new(tmp_path)
    watched = Run.open(run.path)
    assert watched.status() == "running"
    run.update(process=processes.identity() | {"started": "1"})  # its process is gone ...
    run.finish("done")  # ... after it had ended well
    assert watched.status() == "done"


def test_nor_is_one_that_ends_between_two_looks(tmp_path, monkeypatch):
    run, watched = (made := new(tmp_path)), Run.open(made.path)

    def look(_process: object) -> bool:
        run.finish("done")
        return False

    monkeypatch.setattr(processes, "is_alive", look)
    assert watched.status() == "done"


def test_the_step_a_run_has_reached_is_read_from_the_end_of_its_events(tmp_path, monkeypatch):
    run = new(tmp_path)
    assert run.last_step() is None
    for step in range(1, 3001):
        run.log("metric", step=step, text="x" * 100)
    run.log("resume", step=2000)
    run.log("warn", text="no step")
    read = []
    monkeypatch.setattr(
        Tail, "_block", lambda self, *more: read.append(block(self, *more)) or read[-1]
    )
    assert run.last_step() == 2000
    assert 0 < sum(map(len, read)) <= 1 << 16
    with (run.path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"t":1,"kind":"metric","st')
    assert run.last_step() == 2000


# --- taking over


def test_a_resumed_run_forgets_what_was_asked_of_the_last_process(tmp_path):
    run = new(tmp_path)
    for request in ("stop", "pause", "checkpoint"):
        run.request(request)
    run.finish("interrupted")
    again = Run.open(run.path)
    again.claim()
    assert again.requests() == set()


def test_a_resumed_run_removes_what_a_killed_writer_left(tmp_path):
    run = new(tmp_path)
    run.finish("failed")
    (run.path / "run.json.tmp-123").write_text("{")
    Run.open(run.path).claim()
    assert not list(run.path.glob("*.tmp-*"))


# --- names


def test_the_latest_is_the_one_made_last_whatever_it_is_called(tmp_path):
    new(tmp_path, name="slurm-1-0")
    last = new(tmp_path)
    assert Run.open("latest", tmp_path / "runs").name == last.name
    job = new(tmp_path, name="a-job")
    assert Run.open("latest", tmp_path / "runs").name == job.name


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "", "a\0b"])
def test_a_run_cannot_be_made_outside_its_folder(tmp_path, name):
    with pytest.raises(UserError):
        new(tmp_path, name=name)


def test_only_what_lies_in_the_folder_of_runs_is_removed(vcell, tmp_path):
    elsewhere = Run.create(tmp_path / "elsewhere", "toy")
    elsewhere.finish("done")
    new(tmp_path).finish("done")
    (tmp_path / "runs" / "link").symlink_to(elsewhere.path)
    for name in (elsewhere.path, Path("runs") / ".." / "elsewhere" / elsewhere.name, "link"):
        ran = vcell("runs", "rm", "--force", name)
        assert (ran.code, elsewhere.path.is_dir()) == (2, True)
        assert "--runs-dir" in ran.err


def test_a_run_named_twice_is_removed_once(vcell, tmp_path):
    run = new(tmp_path)
    run.finish("done")
    ran = vcell("runs", "rm", run.name, "latest", "--json")
    assert (ran.code, ran.json) == (0, {"removed": [run.name]})


# --- damage


@pytest.mark.parametrize("name", ["config", "provenance", "process", "summary"])
@pytest.mark.parametrize("value", [[1], "text", 3])
def test_a_run_json_of_another_shape_is_told_with_what_to_do(tmp_path, name, value):
    run = new(tmp_path)
    run.update(**{name: value})
    with pytest.raises(UserError, match=rf"run\.json: is damaged: its {name}") as caught:
        Run.open(run.path)
    assert str(run.path) in (caught.value.hint or "")
    assert find_runs(tmp_path / "runs")[0] == []


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"", b"step-" + b"9" * 5000, b"step-000007"])
def test_a_damaged_pointer_to_the_latest_checkpoint_is_passed_over(tmp_path, raw):
    run = new(tmp_path)
    run.save_checkpoint(3, lambda folder: (folder / "x").write_text("x"))
    (run.path / "ckpt" / "latest").write_bytes(raw)
    assert run.checkpoint("latest").step == 3


@pytest.mark.parametrize(
    "field", [{"created": 3}, {"created": "yesterday"}, {"status": [1]}, {"argv": {}}, {"git": 1}]
)
def test_the_commands_survive_odd_fields(vcell, tmp_path, field):
    run = new(tmp_path)
    run.update(**field)
    assert vcell("runs", "list").code == 0
    assert vcell("runs", "show", run.name).code == 0


def test_runs_are_listed_without_anything_heavy(tmp_path):
    code = """
import sys
from pathlib import Path
from vcell import cli
from vcell.runs import Run
Run.create(sys.argv[1], "toy").log("metric", step=1)
cli.run(["runs", "list", "--runs-dir", sys.argv[1]])
heavy = {"numpy", "torch", "anndata", "h5py", "zarr", "numba", "pandas", "rich", "textual"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""
    with python(code, tmp_path / "runs") as process:
        assert process.stdout.read().endswith("heavy: []\n")
