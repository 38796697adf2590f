"""A killed run continues with its shards, and its table is the same bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from tests.support import clean_environment


def go_on_until_done(vcell, tmp_path, name, kills, env):
    """Kill the run repeatedly, each time after some new shards."""
    folder = tmp_path / "runs" / name / "shards"
    for _ in range(kills):
        before = len(list(folder.glob("*.json")))
        words = ["isp", "run", "--resume", name]
        process = subprocess.Popen(
            [sys.executable, "-m", "vcell", *words], cwd=tmp_path, env=env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and len(list(folder.glob("*.json"))) < before + 2:
            time.sleep(0.02)
        done = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
        assert done.items() <= after.items()  # no finished shard was computed again
    return vcell("isp", "run", "--resume", name, "--json")


def killed(isp, vcell, tmp_path, kills):
    words = ("--shard", 5, "--max-cells", 20, "--no-gates")
    whole = isp(*words)
    assert whole.code == 0, whole.err
    want = tmp_path / whole.json["run"] / "shifts.parquet"
    started = isp(*words)
    name = os.path.basename(started.json["run"])  # noqa: PTH119 - a name, not a path
    folder = tmp_path / "runs" / name
    for path in (folder / "shards").iterdir():
        path.unlink()
    (folder / "shifts.parquet").unlink()
    ran = go_on_until_done(vcell, tmp_path, name, kills, clean_environment())
    assert ran.code == 0, ran.err
    assert pq.read_table(folder / "shifts.parquet").equals(pq.read_table(want))
    assert (folder / "shifts.parquet").read_bytes() == want.read_bytes()
    assert not list((folder / "shards").glob("*.tmp-*.parquet"))


def test_a_run_killed_twice_is_completed(isp, vcell, tmp_path):
    killed(isp, vcell, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_twenty_times_is_completed(isp, vcell, tmp_path):
    killed(isp, vcell, tmp_path, 20)
