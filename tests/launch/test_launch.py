"""Launching: in this process, as two gloo processes, on two machines, and every way to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import PATIENCE, clean_environment
from vcell.errors import UserError
from vcell.gpu.nvml import Device, Devices
from vcell.launch import LaunchOptions, make_plan
from vcell.launch.plan import first_host
from vcell.runs import Run, Tail

HERE = Path(__file__).parent
NO_GPUS = Devices((), "no NVIDIA driver answers")
FOUR_GPUS = Devices(tuple(Device(i, "H200", 1 << 37, f"GPU-{i}") for i in range(4)))
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_NNODES": "3",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "gpu[07-09]",
}


def start(cwd: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE / "run_it.py", *words],
        cwd=cwd,
        env=clean_environment() | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def the_run(cwd: Path) -> Run:
    return Run.open("latest", cwd / "runs")


# --- plans


@pytest.mark.parametrize(
    ("options", "seen", "expected"),
    [
        ({}, NO_GPUS, ("cpu", 1)),
        ({}, FOUR_GPUS, ("cuda", 1)),
        ({"gpus": "auto"}, FOUR_GPUS, ("cuda", 4)),
        ({"gpus": "3"}, FOUR_GPUS, ("cuda", 3)),
        ({"device": "cpu"}, FOUR_GPUS, ("cpu", 1)),
        ({"device": "cpu", "procs": 2}, NO_GPUS, ("cpu", 2)),
        ({"gpus": "auto"}, NO_GPUS, ("cpu", 1)),
    ],
)
def test_devices_follow_what_was_asked_and_what_is_there(options, seen, expected):
    plan = make_plan(LaunchOptions(**options), {}, seen)
    assert (plan.device, plan.procs) == expected


@pytest.mark.parametrize(
    ("options", "seen", "message"),
    [
        ({"gpus": "8"}, FOUR_GPUS, "requested: 8 GPUs; this machine has 4"),
        ({"gpus": "2"}, NO_GPUS, "has none (no NVIDIA driver answers)"),
        ({"device": "cuda"}, NO_GPUS, "requested: 1 GPU; this machine has none"),
        ({"device": "cpu", "gpus": "2"}, FOUR_GPUS, "contradict"),
        ({"nodes": 2}, NO_GPUS, "a rendezvous and a job name"),
        ({"nodes": 2, "rdzv": "head", "job": "j"}, NO_GPUS, "not of the form HOST:PORT"),
        ({"nodes": 2, "rdzv": "no.invalid:29500", "job": "j"}, NO_GPUS, "no.invalid is not known"),
        ({"launcher": "slurm"}, NO_GPUS, "no SLURM_JOB_ID"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(options, seen, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        make_plan(LaunchOptions(**options), {}, seen)
    assert caught.value.hint


def test_refusing_too_many_gpus_does_not_import_torch(tmp_path):
    code = "import sys\nfrom vcell.launch import *\n"
    code += "try: make_plan(LaunchOptions(gpus='64'))\n"
    code += "except Exception as e: print(type(e).__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "UserError False"


@pytest.mark.parametrize("bad", [{"gpus": "0"}, {"gpus": "some"}, {"procs": 2, "device": "cuda"}])
def test_impossible_options_are_refused_by_the_config(bad):
    with pytest.raises(ValueError, match=r"gpus|procs"):
        LaunchOptions(**bad)


def test_slurm_is_read_from_its_environment():
    plan = make_plan(LaunchOptions(device="cpu"), SLURM, NO_GPUS)
    assert (plan.nodes, plan.rdzv, plan.job, plan.leads) == (
        3,
        "gpu07:24711",
        "slurm-4711-2",
        False,
    )
    again = make_plan(LaunchOptions(device="cpu"), SLURM | {"SLURM_RESTART_COUNT": "1"}, NO_GPUS)
    assert again.job == "slurm-4711-2-restart1"
    with pytest.raises(UserError, match="several tasks"):
        make_plan(LaunchOptions(device="cpu"), SLURM | {"SLURM_NTASKS_PER_NODE": "4"}, NO_GPUS)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [("gpu[07-09,12],x", "gpu07"), ("a,b", "a"), ("n1", "n1"), ("r[1-2]-ib,c", "r1-ib")],
)
def test_the_first_machine_of_slurms_list(nodelist, host):
    assert first_host(nodelist) == host


# --- one process


def test_one_process_runs_here(tmp_path):
    code, err = finish(start(tmp_path, "well"))
    assert code == 0
    assert err == "rank 0 speaks\n"
    run = the_run(tmp_path)
    assert (run.status(), run.meta["world_size"], run.meta["device"]) == ("done", 1, "cpu")


@pytest.mark.parametrize(
    ("mode", "exit_code", "said"),
    [
        ("raise", 1, "error: ZeroDivisionError: by nothing"),
        ("user", 2, "error: the gene XYZ is unknown\n  hint: check the spelling"),
    ],
)
def test_a_failure_here_is_told_once(tmp_path, mode, exit_code, said):
    code, err = finish(start(tmp_path, mode))
    assert code == exit_code
    assert said in err
    assert err.count("Traceback") == (mode == "raise")
    assert the_run(tmp_path).status() == "failed"


# --- several processes

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")
TWO = ("device=cpu", "procs=2")


@pytest.mark.dist
def test_two_processes_find_each_other_and_keep_logs_apart(tmp_path):
    code, err = finish(start(tmp_path, "well", *TWO))
    assert code == 0, err
    assert err == "rank 0 speaks\n"  # one voice, without prefixes
    run = the_run(tmp_path)
    assert run.status() == "done"
    for rank in (0, 1):
        assert [e["value"] for e in Tail(run.path / f"rank-{rank}.jsonl").read()] == [3]
    assert len(list(run.path.glob("logs/*/attempt_0/*/stderr.log"))) == 2


@pytest.mark.dist
@pytest.mark.parametrize(
    ("mode", "exit_code", "said"),
    [
        ("raise", 1, "error: rank 1 failed: ZeroDivisionError: by nothing"),
        pytest.param(
            "user",
            2,
            "error: the gene XYZ is unknown\n  hint: check the spelling",
            marks=pytest.mark.slow,
        ),
        ("kill", 1, "error: rank 1 was killed by SIGKILL"),
    ],
)
def test_the_failing_rank_is_told_once(tmp_path, mode, exit_code, said):
    code, err = finish(start(tmp_path, mode, *TWO))
    assert code == exit_code
    assert said in err
    assert err.count("Traceback") == (mode == "raise")
    assert ("in _fail" in err) == (mode == "raise")  # the rank's own traceback
    assert "ChildFailedError" not in err
    assert the_run(tmp_path).status() == "failed"


@pytest.mark.dist
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_reaches_the_workers_who_write_a_checkpoint(tmp_path, number):
    process = start(tmp_path, "wait", *TWO)
    deadline = time.monotonic() + PATIENCE
    while len(_ready(tmp_path)) < 2:
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    code, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    run = the_run(tmp_path)
    assert run.status() == "interrupted"
    run.checkpoint("latest").verify()


def _ready(cwd: Path) -> list[Path]:
    logs = cwd.glob("runs/*/rank-*.jsonl")
    return [p for p in logs if any(e["kind"] == "ready" for e in Tail(p).read())]


@pytest.mark.dist
def test_two_machines_share_one_run(tmp_path):
    """Two launchers stand for two machines with a common file system."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = ("device=cpu", "nodes=2", f"rdzv=localhost:{port}", "job=pair")
    both = [start(tmp_path, "well", *words) for _ in range(2)]
    ended = [finish(process) for process in both]
    assert [code for code, _ in ended] == [0, 0], ended
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["pair"]
    run = Run.open("pair", tmp_path / "runs")
    assert (run.status(), run.meta["world_size"]) == ("done", 2)
    assert [e["value"] for r in (0, 1) for e in Tail(run.path / f"rank-{r}.jsonl").read()] == [3, 3]
    code, err = finish(start(tmp_path, "well", *words))
    assert code == 2
    assert "has run already" in err


def test_the_environment_is_left_alone():
    assert "RANK" not in os.environ


@pytest.mark.parametrize("options", [[], ["device=cpu", "procs=2"]])
def test_what_a_run_says_stands_in_its_logs_too(tmp_path, options):
    assert finish(start(tmp_path, "well", *options))[0] == 0
    said = (the_run(tmp_path).path / "logs" / "console.log").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in said] == ["rank 0 speaks"]
