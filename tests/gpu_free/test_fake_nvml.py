"""The false driver does what tests need of one: it outlives processes, fails, lies and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_nvml import LOST, FakeNvml

ASK = """
import sys
import pynvml as p
p.nvmlInit()
h = p.nvmlDeviceGetHandleByIndex(int(sys.argv[1]))
for line in sys.argv[2:]:
    try:
        print(eval("p.nvmlDevice" + line.replace("(", "(h, ", 1).replace("(h, )", "(h)")))
    except p.NVMLError as error:
        print("error", error.value)
"""


def ask(nvml: FakeNvml, *lines: str, card: int = 0, **more: str) -> list[str]:
    """Answers of the real pynvml, each as text, up to the process's death."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", ASK, str(card), *lines],
        env=os.environ | nvml.environment | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path, cards=2)


def test_settings_outlive_the_process(nvml: FakeNvml) -> None:
    nvml[1].load = 1
    assert ask(nvml, "SetPowerManagementLimit(400_000)", card=1) == ["None"]
    lines = ("GetPowerManagementLimit()", "GetPowerUsage()", "GetCurrentClocksEventReasons()")
    assert ask(nvml, *lines, card=1) == ["400000", "400000", "4"]
    assert nvml[1].power_limit == 400_000
    assert nvml.calls == [("SetPowerManagementLimit", 1, 400_000, 0)]
    assert ask(nvml, "GetPowerManagementLimit()") == ["700000"]


def test_a_lock_lowers_clock_and_watts(nvml: FakeNvml) -> None:
    nvml[0].load = 1
    lines = ("SetGpuLockedClocks(0, 990)", "GetClockInfo(1)", "GetPowerUsage()")
    assert ask(nvml, *lines) == ["None", "990", str(1000 * (120 + 580 // 8) + 500)]
    assert ask(nvml, "ResetGpuLockedClocks()", "GetClockInfo(1)") == ["None", "1980"]


def test_energy_is_power_times_time(nvml: FakeNvml) -> None:
    nvml[0].load, nvml.machine.now = 1, 100
    assert ask(nvml, "GetTotalEnergyConsumption()") == ["0"]
    nvml.machine.now = 110
    assert ask(nvml, "GetTotalEnergyConsumption()") == ["7000000"]


def test_hooks_fail_lie_and_kill(nvml: FakeNvml) -> None:
    nvml.hooks = f"FAIL=nvmlDeviceGetPowerUsage:{LOST}@1 LIE=nvmlDeviceSetPowerManagementLimit"
    assert ask(nvml, "GetPowerUsage()", card=1) == ["error 15"]
    assert ask(nvml, "GetPowerUsage()") == ["70000"]
    assert ask(nvml, "SetPowerManagementLimit(300_000)") == ["None"]
    assert nvml[0].power_limit == 700_000
    nvml.hooks = "DIE=*:2"
    assert ask(nvml, *["SetGpuLockedClocks(0, 990)"] * 3) == ["None"]
    assert [call[0] for call in nvml.calls].count("SetGpuLockedClocks") == 2


def test_the_unprivileged_set_nothing(nvml: FakeNvml) -> None:
    nvml.machine.permission = 0
    assert (
        ask(nvml, "SetPowerManagementLimit(300_000)", "ResetGpuLockedClocks()") == ["error 4"] * 2
    )
    assert nvml.calls == []


def test_a_lost_card_and_an_old_driver(nvml: FakeNvml) -> None:
    nvml[1].error = LOST
    assert ask(nvml, "GetName()", card=1) == ["error 15"]
    hook = {"FAKE_NVML_HOOKS": "FAIL=nvmlDeviceGetCurrentClocksEventReasons:13"}
    assert ask(nvml, "GetCurrentClocksEventReasons()", **hook) == ["error 13"]
