"""Launchers that are killed, machines that go on together, and which failure was the first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import PATIENCE, clean_environment
from vcell.errors import RunFailed, UserError
from vcell.gpu.nvml import Devices
from vcell.launch import LaunchOptions, Plan, elastic, join_run, make_plan, resume_run
from vcell.launch.elastic import _first_cause
from vcell.launch.worker import failures_of, note_failure
from vcell.runs import Run, Tail
from vcell.runs import process as processes

HERE = Path(__file__).parent
PAIR = Plan("cpu", 1, nodes=2, rdzv="head:29500", job="pair")
LONG_AGO = time.time() - 3600


def start(cwd: Path, *words: str, ignoring: signal.Signals | None = None) -> subprocess.Popen[str]:
    before = signal.signal(ignoring, signal.SIG_IGN) if ignoring else None  # children inherit that
    try:
        return subprocess.Popen(
            [sys.executable, HERE / "run_it.py", *words],
            cwd=cwd,
            env=clean_environment() | {"PYTHONPATH": str(HERE)},
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        if ignoring:
            signal.signal(ignoring, before)


def until(condition, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ready(cwd: Path, ranks: int) -> bool:
    logs = cwd.glob("runs/*/rank-*.jsonl")
    return sum(any(e["kind"] == "ready" for e in Tail(p).read()) for p in logs) == ranks


def of_another(run: Run, pid: int) -> Run:
    """Hand a run to another living process of this machine."""
    run.update(process=processes.identity(pid))
    return Run.open(run.path)


def new(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "toy")


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_single_process_as_interrupted(tmp_path, number):
    with start(tmp_path, "sleep") as process:
        until(lambda: ready(tmp_path, 1))
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.count("Traceback")) == (130, 0)
    assert Run.open("latest", tmp_path / "runs").status() == "interrupted"


@pytest.mark.dist
def test_workers_of_a_killed_launcher_write_a_checkpoint_and_end(tmp_path):
    with start(tmp_path, "wait", "device=cpu", "procs=2") as process:
        until(lambda: ready(tmp_path, 2))
        process.kill()
        process.communicate()
    run = Run.open("latest", tmp_path / "runs")
    until(lambda: run.status() == "interrupted")
    run.checkpoint("latest").verify()


@pytest.mark.dist
@pytest.mark.slow
def test_nohup_holds_for_several_processes_too(tmp_path):
    words = ("wait", "device=cpu", "procs=2")
    with start(tmp_path, *words, ignoring=signal.SIGHUP) as process:
        until(lambda: ready(tmp_path, 2))
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


@pytest.mark.dist
def test_a_rank_says_why_it_failed_before_it_leaves_its_peers(tmp_path):
    """Leaving the group waits for peers on NCCL; here it would for an hour."""
    with start(tmp_path, "stuck", "device=cpu", "procs=2") as process:
        _, err = process.communicate(timeout=PATIENCE)  # far less than that hour
    assert process.returncode == 2, err
    assert "the gene XYZ is unknown" in err


def test_machines_that_do_not_meet_are_told(tmp_path, monkeypatch):
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError
    from torch.distributed.launcher import api

    def never(*_words: object) -> None:
        raise RendezvousTimeoutError

    monkeypatch.setattr(api, "elastic_launch", lambda *_: never)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(RunFailed, match="the 2 machines did not all connect to head:29500"):
        elastic.start(new(tmp_path), PAIR)


# --- the first cause


def causes(**codes: int) -> SimpleNamespace:
    failures = {int(rank[1:]): SimpleNamespace(exitcode=code) for rank, code in codes.items()}
    return SimpleNamespace(failures=failures)


def test_a_kill_comes_before_what_its_peers_complain_of(tmp_path):
    run = new(tmp_path)
    note_failure(run, 0, RuntimeError("connection closed by peer"))
    assert str(_first_cause(run, causes(r0=1, r1=-9))).startswith("rank 1 was killed by SIGKILL")


def test_an_exception_comes_before_the_peers_that_were_ended_for_it(tmp_path):
    run = new(tmp_path)
    note_failure(run, 1, UserError("the gene is unknown"))
    cause = _first_cause(run, causes(r0=-signal.SIGABRT, r1=1, r2=-signal.SIGTERM))
    assert (type(cause), str(cause)) == (UserError, "the gene is unknown")


def test_of_several_exceptions_the_earliest_is_told(tmp_path):
    run = new(tmp_path)
    note_failure(run, 1, RunFailed("the cause"))
    note_failure(run, 0, RunFailed("the consequence"))
    assert "the cause" in str(_first_cause(run, causes(r0=1, r1=1)))


def test_a_process_ended_from_outside_is_named(tmp_path):
    assert "rank 1 was killed by SIGTERM" in str(_first_cause(new(tmp_path), causes(r1=-15)))


def test_a_resumed_run_does_not_tell_its_old_failure(tmp_path):
    run = new(tmp_path)
    run.update(launches=1)
    note_failure(run, 0, RunFailed("long ago"))
    run.update(launches=2)
    assert failures_of(run) == []
    note_failure(run, 1, RunFailed("now"))
    assert [failure["message"] for failure in failures_of(Run.open(run.path))] == ["now"]


# --- the name of a job


def join(root: Path) -> tuple[Run, Plan]:
    return join_run(root, PAIR, lambda name: Run.create(root, "toy", name=name))


DEAD = {"pid": 2**22 + 1, "started": "1", "host": processes.identity()["host"], "boot": "before"}
ELSEWHERE = DEAD | {"host": "node17"}


@pytest.mark.parametrize(
    ("maker", "old"),
    [(DEAD, False), (ELSEWHERE, True), ("", True), (None, True)],
    ids=["restarted machine", "machine out of sight", "power failure", "earlier still"],
)
def test_what_a_dead_machine_was_making_does_not_hold_the_name(tmp_path, maker, old):
    (tmp_path / "pair" / "ckpt").mkdir(parents=True)
    if maker is not None:
        note = tmp_path / "pair" / "maker.tmp-7"
        note.write_text(json.dumps(maker) if maker else "")
        os.utime(note, (LONG_AGO, LONG_AGO) if old else None)
    if old:
        os.utime(tmp_path / "pair", (LONG_AGO, LONG_AGO))
    run, plan = join(tmp_path)
    assert (run.name, run.status(), plan.leads) == ("pair", "running", True)
    assert not list(run.path.glob("maker*"))


def test_a_run_that_another_machine_is_making_is_waited_for(tmp_path, capsys):
    made = tmp_path / "pair"
    made.mkdir()
    (made / "maker.tmp-7").write_text(json.dumps(ELSEWHERE))

    def other_machine() -> None:
        run = Run.create(tmp_path, "toy")
        run.update(process=ELSEWHERE, job="pair")
        (run.path / "run.json").rename(made / "run.json")

    first = threading.Timer(0.5, other_machine)
    first.start()
    run, plan = join(tmp_path)
    first.join()
    assert (run.path, plan.leads) == (made, False)
    assert "waiting for another machine" in capsys.readouterr().err


def test_a_machine_that_dies_while_it_is_waited_for_is_replaced(tmp_path):
    with subprocess.Popen(["sleep", "0.5"]) as maker:
        (tmp_path / "pair").mkdir()
        note = json.dumps(processes.identity(maker.pid))
        (tmp_path / "pair" / "maker.tmp-7").write_text(note)
        threading.Thread(target=maker.wait).start()
        _, plan = join(tmp_path)
    assert plan.leads


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("owner", [DEAD, ELSEWHERE])
def test_no_machine_follows_a_leader_that_is_dead(tmp_path, owner, leads):
    run = Run.create(tmp_path, "toy", name="pair")
    run.update(process=owner, job="pair")
    os.utime(run.path / "run.json", (LONG_AGO, LONG_AGO))
    with pytest.raises(UserError, match="its process is gone") as caught:
        join_run(
            tmp_path, replace(PAIR, leads=leads), lambda name: Run.create(tmp_path, "t", name=name)
        )
    assert "--resume pair" in (caught.value.hint or "")
    assert resume_run(Run.open(run.path), PAIR).leads


def test_a_users_folder_is_no_run_that_is_being_made(tmp_path):
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "notes").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a run"):
        join(tmp_path)
    assert (tmp_path / "pair" / "notes").read_text() == "mine"


# --- going on


def test_one_machine_takes_a_run_that_ended_and_none_that_lives(tmp_path):
    run = new(tmp_path)
    run.finish("interrupted")
    assert resume_run(run, Plan("cpu", 1)).leads
    with pytest.raises(UserError, match="still being written"):
        resume_run(of_another(run, os.getppid()), Plan("cpu", 1))


def test_of_several_machines_the_first_to_claim_leads(tmp_path):
    run = new(tmp_path)
    run.finish("interrupted")
    assert resume_run(run, PAIR).leads
    assert not resume_run(of_another(run, os.getppid()), PAIR).leads
    with pytest.raises(UserError, match="still being written"):
        resume_run(Run.open(run.path), Plan("cpu", 1, nodes=2, job="another"))


def test_under_slurm_the_others_wait_for_the_first(tmp_path):
    run = new(tmp_path)
    run.finish("interrupted")
    first = threading.Timer(0.5, lambda: resume_run(Run.open(run.path), PAIR))
    first.start()
    follower = Plan("cpu", 1, nodes=2, job="pair", leads=False)
    assert resume_run(Run.open(run.path), follower) == follower
    assert not first.is_alive()
    first.join()


@pytest.mark.parametrize("silent", [False, True])
def test_a_run_of_a_machine_out_of_sight_is_taken_over_after_a_long_silence(
    tmp_path, capsys, silent
):
    run = new(tmp_path)
    run.log("metric", step=1)
    run.update(process=processes.identity() | {"host": "node17"})
    if silent:
        for name in ("events.jsonl", "run.json"):
            os.utime(run.path / name, (LONG_AGO, LONG_AGO))
        run.claim()
        assert "taking the run over" in capsys.readouterr().err
        assert run.status() == "running"
    else:
        with pytest.raises(UserError, match="on node17") as caught:
            run.claim()
        assert "10 minutes" in (caught.value.hint or "")


def test_a_slurm_job_without_srun_is_refused_before_it_waits_for_machines_that_never_come():
    batch_script = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "2", "SLURM_NODEID": "0"}
    with pytest.raises(UserError, match="no SLURM_STEP_ID") as caught:
        make_plan(LaunchOptions(device="cpu"), batch_script, Devices(()))
    assert "srun" in (caught.value.hint or "")
    local = make_plan(LaunchOptions(device="cpu", launcher="local"), batch_script, Devices(()))
    assert local.nodes == 1
