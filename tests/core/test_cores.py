"""Threads follow what a process is allowed: its affinity, and the quota of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vcell.cores import cores, in_parts, quota_of


def test_affinity_counts():
    one = min(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, [{one}])
from vcell.cores import cores
print(cores())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert cores(1) == 1
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/job/step", {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000"}, 4.0),
        ("0::/job/step", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "800000 100000"}, 2),
        ("0::/of/the/host", {"cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/docker/a", {"cpu,cpuacct/cpu.cfs_quota_us": "250000",
                                     "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "-1",
                             "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        ("3:memory:/job", {"cpu.max": "100000 100000"}, None),
        ("0::/", {"cpu.max": "damaged"}, None),
        ("0::/", {}, None),
    ],
)  # fmt: skip
def test_the_smallest_quota_on_the_way_up_counts(tmp_path, group, files, expected):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "proc").write_text(group + "\n")
    assert quota_of(tmp_path / "proc", tmp_path / "cgroup") == expected


def test_where_there_are_no_cgroups_nothing_limits(tmp_path):
    assert quota_of(tmp_path / "absent", tmp_path) is None


def test_parts_cover_every_row_once_and_errors_come_through():
    for n in (0, 1, 2, 7, 100):
        seen = [0] * n

        def work(first, last, seen=seen):
            for row in range(first, last):
                seen[row] += 1

        in_parts(work, n)
        assert seen == [1] * n
    with pytest.raises(ZeroDivisionError):
        in_parts(lambda first, last: 1 // 0, 8)
