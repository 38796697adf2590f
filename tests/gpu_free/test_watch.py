"""What a device does while it trains stands in its rank's events."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_nvml import NOT_SUPPORTED, FakeNvml
from tests.train.toy import fit
from vcell.runs import Run, Tail
from vcell.train import watch

WATCH = """
import sys, time
from pathlib import Path
from vcell.gpu.accelerator import Accelerator
from vcell.runs.events import EventLog
from vcell.train import watch

class Card(Accelerator):
    uuid = sys.argv[2]

watch.EVERY = 0.1
with EventLog(Path(sys.argv[1])) as log, watch.watching(log, Card("cuda")):
    time.sleep(0.35)
"""


def watched(nvml: FakeNvml, folder: Path, uuid: str) -> list[dict]:
    path = folder / "rank-0.jsonl"
    path.unlink(missing_ok=True)
    words = [sys.executable, "-c", WATCH, str(path), uuid]
    subprocess.run(words, env=os.environ | nvml.environment, check=True)
    return [{k: v for k, v in event.items() if k != "t"} for event in Tail(path).read()]


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    nvml = FakeNvml(tmp_path, cards=2)
    nvml[1].load, nvml[1].power_limit, nvml[1].other_limit = 1, 400_000, 300_000
    return nvml


def test_a_gpu_tells_all_it_knows(nvml: FakeNvml, tmp_path: Path) -> None:
    events = watched(nvml, tmp_path, nvml[1].uuid.decode().removeprefix("GPU-"))
    assert 3 <= len(events) <= 6
    first = events[0]
    assert first.pop("energy_j") >= 0
    assert first == {
        "kind": "gpu",
        "watts": pytest.approx(300, abs=1),
        "cap_watts": 400.0,
        "enforced_cap_watts": 300.0,
        "mhz": pytest.approx(1330, abs=20),
        "celsius": 49,
        "memory_bytes": 1 << 30,
        "memory_total_bytes": 80 << 30,
        "throttle": ["power cap"],
        "utilisation": 100,
    }
    joules = [event["energy_j"] for event in events[1:]]
    assert joules == sorted(joules)
    assert joules[-1] > joules[0]


def test_what_a_card_does_not_tell_is_left_out(nvml: FakeNvml, tmp_path: Path) -> None:
    hooks = ["GetTotalEnergyConsumption", "GetEnforcedPowerLimit", "GetCurrentClocksEventReasons"]
    nvml.hooks = " ".join(f"FAIL=nvmlDevice{name}:{NOT_SUPPORTED}" for name in hooks)
    event = watched(nvml, tmp_path, nvml[1].uuid.decode())[0]
    assert not {"energy_j", "enforced_cap_watts"} & event.keys()
    assert event["throttle"] == ["power cap"]  # by the older name of the question


def test_an_instance_tells_nothing_of_its_whole_card(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml[1].migs = 2
    event = watched(nvml, tmp_path, "1" + nvml[1].uuid.decode()[4:])[0]
    assert event.keys() == {"kind", "memory_bytes", "memory_total_bytes", "utilisation"}


def test_a_card_that_is_not_there_is_not_watched(nvml: FakeNvml, tmp_path: Path) -> None:
    assert watched(nvml, tmp_path, "GPU-another") == []
    nvml.hooks = "FAIL=nvmlInit:9"
    assert watched(nvml, tmp_path, nvml[1].uuid.decode()) == []


def test_a_cpus_run_tells_time_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.05)
    run = Run.create(tmp_path, "train-toy")
    fit(run, {"max_steps": 6}, slow=0.03)
    events = [e for e in Tail(run.path / "rank-0.jsonl").read() if e["kind"] == "cpu"]
    assert len(events) >= 3
    seconds = [event["cpu_seconds"] for event in events]
    assert seconds == sorted(seconds)
    assert all(10 << 20 < event["rss_bytes"] < 1 << 40 for event in events)


def test_the_first_and_the_last_moment_are_there_in_a_short_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 3600.0)  # longer than this, however busy the machine is
    run = Run.create(tmp_path, "train-toy")
    fit(run, {"max_steps": 2})
    kinds = [event["kind"] for event in Tail(run.path / "rank-0.jsonl").read()]
    assert kinds.count("cpu") == 2
    assert kinds[-1] == "cpu"
