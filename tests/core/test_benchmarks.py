"""The judgement of ``make bench``: what is wanted is compared with what was measured, loudly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers

    return peers


def test_ratios_are_judged_and_told(peers, capsys):
    judged, missed = peers.misses(peers.WANTED)  # as measured: exactly what is wanted
    assert judged == sum(map(len, peers.WANTED.values()))
    assert not missed
    peers.judge(peers.WANTED)
    assert f"{judged} judged, 0 missed" in capsys.readouterr().out


def test_a_ratio_below_what_is_wanted_ends_with_an_error(peers):
    found = {
        "de, 20,000 cells": {"CPU, warm": 5.99, "memory": 0.1},  # of memory nothing is wanted
        "evaluate, 20,000 cells": {"CPU, warm": float("nan"), "CPU, cold": 31.0, "memory": 5.0},
        "evaluate, 2,000 cells": {"CPU, warm": 0.5},
    }
    judged, missed = peers.misses(found)
    assert judged == 4
    assert [line.split(":")[0] for line in missed] == [
        "de, 20,000 cells, CPU, warm",
        "evaluate, 20,000 cells, CPU, warm",
    ]
    with pytest.raises(SystemExit, match=r"MISSED: de, 20,000 cells, CPU, warm: 6\.0 times") as end:
        peers.judge(found)
    assert end.value.code != 0


def test_costs_without_a_peer_are_judged_too(peers):
    found = {"help": {"vcell --help": 1.2}, "command": {"vcell de": 0.51, "vcell inspect": 0.5}}
    judged, missed = peers.excesses(found)
    assert (judged, missed) == (3, ["vcell de: 0.51, at most 0.5 is allowed"])


def test_absent_peers_are_named_with_what_installs_them(peers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "ENVS", tmp_path)
    assert peers.python_of("annbatch") is None
    assert f"LEFT OUT: annbatch is not installed in {tmp_path}" in capsys.readouterr().out
    assert len(peers.missing()) == len(peers.PEERS)
    assert all(peers.INSTALL in line for line in peers.missing())
    (tmp_path / "tape/bin").mkdir(parents=True)
    (tmp_path / "tape/bin/python").touch()
    assert peers.python_of("tape") == tmp_path / "tape/bin/python"
    assert len(peers.missing()) == len(peers.PEERS) - 1


def test_a_python_that_does_not_start_is_absent(peers, tmp_path, monkeypatch):
    assert peers.base_python(None) == sys.executable
    assert peers.base_python(f"3.{sys.version_info.minor}") == sys.executable
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.base_python("3.99") is None
    shim = tmp_path / "python3.99"
    for code, expected in ((127, None), (0, str(shim))):
        shim.write_text(f"#!/bin/sh\nexit {code}\n")
        shim.chmod(0o755)
        assert peers.base_python("3.99") == expected


def test_every_row_that_is_wanted_is_one_that_the_scripts_write(peers, monkeypatch):
    import loader
    import whole

    monkeypatch.setattr(whole, "simulate", lambda cells, data, **_: data)
    rows = {"pseudobulk"}
    for packed in (False, True):
        for job in whole.tasks(2000, Path("x"), "2", packed=packed):
            assert job.peer in peers.PEERS
            rows |= {whole.row(job, cells, packed=packed) for cells in (2000, 20_000, 60_000)}
    for table, (ours, others) in loader.TABLES.items():
        rows |= {f"{table}, {who} / {other}" for who in ours for other in others}
    assert set(peers.WANTED) <= rows


def test_tables_without_a_peer_are_left_out(peers, tmp_path, monkeypatch, capsys):
    import loader

    monkeypatch.setattr(peers, "ENVS", tmp_path)
    assert not loader.compared()
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in told] == ["annbatch", "scdataset", "cell-load"]
    assert all(line.startswith("LEFT OUT: ") for line in told)
    for name in ("annbatch", "cell-load"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/python").touch()
    assert loader.compared() == [name for name in loader.TABLES if not name.startswith("plain")]


def test_bench_fails_where_a_table_fails(tmp_path):
    """A copy of the runner, whose tables are two scripts: one holds, and one does not."""
    for name in ("bench.py", "peers.py"):
        text = (BENCHMARKS / name).read_text()
        (tmp_path / name).write_text(
            re.sub(
                r"TABLES = \{.*?\n\}",
                'TABLES = {"good": ["good.py"], "bad": ["bad.py"]}',
                text,
                flags=re.DOTALL,
            )
        )
    judge = "import peers; peers.judge({'de, 20,000 cells': {'CPU, warm': %s}})"
    (tmp_path / "good.py").write_text(judge % 7)
    (tmp_path / "bad.py").write_text(judge % 5)
    for only, code in (("good", 0), ("good,bad", 1), ("none", 2)):
        done = subprocess.run(
            [sys.executable, tmp_path / "bench.py", "--only", only],
            capture_output=True, text=True, check=False, env=os.environ,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert ("LEFT OUT" in done.stdout) == (code < 2)

    assert "no table none: good, bad" in done.stderr
