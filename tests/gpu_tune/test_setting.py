"""`vcell gpu-tune` with a fake driver, through the real pynvml, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fake_nvml import LOST, NO_PERMISSION, NOT_SUPPORTED, FakeNvml

if TYPE_CHECKING:
    from tests.support import Ran

SETTERS = ("SetPowerManagementLimit", "SetGpuLockedClocks", "SetMemoryLockedClocks")
ALL = ("--power-limit", "60%", "--clock", "1500", "--memory-clock", "2619", "--temp-limit", "80")
PATIENCE = 120.0  # seconds for a watchdog on a busy machine


@pytest.fixture
def driver(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path, cards=2)


@pytest.fixture
def tune(vcell: Callable[..., Ran], driver: FakeNvml, tmp_path: Path) -> Callable[..., Ran]:
    def run(*words: str, **more: str) -> Ran:
        state = {"VCELL_GPU_STATE": str(tmp_path / "state")}
        return vcell("gpu-tune", *words, env=driver.environment | state | more)

    return run


def stock(driver: FakeNvml, card: int = 0) -> bool:
    """Whether a card is as it was delivered."""
    one = driver[card]
    locks = (one.lock_min, one.lock_max, one.memory_lock_min, one.memory_lock_max)
    return one.power_limit == 700_000 and locks == (0, 0, 0, 0) and one.gpu_max == 87


def journals(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (tmp_path / "state").glob("gpu-*.json")]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nobody restored the card"
        time.sleep(0.05)


def test_status_only_reads_and_interprets_the_numbers(tune, driver) -> None:
    driver[0].load = 1.0
    driver[0].power_limit = 400_000
    ran = tune("status", "--json")
    assert ran.code == 0, ran.err
    first, second = ran.json["gpus"]
    assert first["enforced_cap_watts"] == 400
    assert first["throttle"] == ["power cap"]
    assert "power cap slows it down" in first["reading"]
    assert second["users"] == []
    assert driver.calls == []


def test_nothing_is_written_without_yes(tune, driver) -> None:
    ran = tune("apply", *ALL)
    assert ran.code == 0, ran.err
    assert "420 W" in ran.out
    assert driver.calls == []


def test_applied_settings_stay_until_they_are_restored(tune, driver, tmp_path) -> None:
    driver[0].power_limit = 650_000  # not the default
    ran = tune("apply", *ALL, "--gpu", "0", "--yes")
    assert ran.code == 0, ran.err
    assert driver[0].power_limit == 420_000
    assert (driver[0].lock_max, driver[0].memory_lock_max, driver[0].gpu_max) == (1500, 2619, 80)
    assert stock(driver, 1)
    assert [entry["state"] for entry in journals(tmp_path)] == ["held"]
    again = tune("apply", "--power-limit", "300", "--gpu", "0", "--yes")
    assert again.code == 0, again.err
    assert tune("restore").code == 0
    assert driver[0].power_limit == 650_000
    assert (driver[0].lock_max, driver[0].gpu_max) == (0, 87)
    assert journals(tmp_path) == []


@pytest.mark.parametrize("setter", [*SETTERS, "SetTemperatureThreshold"])
def test_kill_9_after_a_setter_leaves_the_card_as_it_was(tune, driver, tmp_path, setter) -> None:
    driver.hooks = f"DIE=nvmlDevice{setter}:1"
    ran = tune("apply", *ALL, "--gpu", "0", "--yes")
    assert ran.code == -9
    assert driver.calls  # it did set something
    wait_until(lambda: stock(driver) and journals(tmp_path) == [])


@pytest.mark.parametrize("setter", [*SETTERS, "SetTemperatureThreshold"])
@pytest.mark.parametrize("fault", ["LIE", "FAIL"])
def test_a_setter_that_fails_or_has_no_effect_restores_the_others(
    tune, driver, tmp_path, setter, fault
) -> None:
    code = f":{NO_PERMISSION}" if fault == "FAIL" else ""
    driver.hooks = f"{fault}=nvmlDevice{setter}{code}"
    ran = tune("apply", *ALL, "--gpu", "0", "--yes")
    if fault == "LIE" and "Clocks" in setter:  # nobody can ask for a lock
        assert ran.code == 0
        assert "cannot be read back" in ran.out
        driver.hooks = ""
        assert tune("restore").code == 0
    else:
        assert ran.code == 1
        assert "Traceback" not in ran.err
        if fault == "FAIL" and setter == "SetPowerManagementLimit":
            assert "root" in ran.err
    driver.hooks = ""
    if journals(tmp_path):  # the fault stood in the way of restoring too
        assert tune("apply", *ALL, "--gpu", "0", "--yes").code == 2
        assert tune("restore").code == 0
    assert stock(driver)
    assert journals(tmp_path) == []


def test_without_permission_nothing_changes(tune, driver, tmp_path) -> None:
    driver.machine.permission = 0
    ran = tune("apply", "--power-limit", "400", "--gpu", "0", "--yes")
    assert ran.code == 1
    assert "root" in ran.err
    assert stock(driver)
    assert journals(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        ({"migs": 2}, [], "MIG"),
        ({"pids": 4242}, [], "computes for other processes (4242)"),
        ({}, ["--power-limit", "5000"], "between 200 and 700 W"),
        ({}, ["--power-limit", "much"], "is not a power limit"),
        ({}, ["--clock", "9000"], "between 345 and 1980 MHz"),
        ({}, ["--core-offset", "100"], "offsets are not supported"),
        ({}, ["--fan-curve-aggressive"], "never touches fans"),
        ({}, ["--auto-optimize"], "find-optimal"),
        ({}, ["--no-safety-checks"], "cannot be switched off"),
        ({}, ["--gpu", "7"], "no GPU of this machine is called '7'"),
        ({}, ["--profile", "none"], "there is no profile"),
        ({"error": LOST}, [], ""),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(tune, driver, spoil, words, said) -> None:
    for name, value in spoil.items():
        if name == "pids":
            driver[0].pids[0] = value
        else:
            setattr(driver[0], name, value)
    base = [] if words and words[0] == "--power-limit" else ["--power-limit", "400"]
    gpu = [] if "--gpu" in words else ["--gpu", "0"]
    ran = tune("apply", *base, *gpu, *words, "--yes")
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert driver.calls == []


def test_a_card_without_a_power_limit_says_so(tune, driver) -> None:
    driver.hooks = f"FAIL=nvmlDeviceGetPowerManagementLimitConstraints:{NOT_SUPPORTED}"
    ran = tune("apply", "--power-limit", "400", "--yes")
    assert ran.code == 2
    assert "no power limit" in ran.err


def test_cards_of_other_processes_are_set_on_request(tune, driver) -> None:
    driver[0].pids[0] = 4242
    assert tune("apply", "--power-limit", "400", "--gpu", "0", "--shared", "--yes").code == 0
    assert driver[0].power_limit == 400_000


def test_unconfirmed_settings_are_restored(tune, driver, tmp_path) -> None:
    ran = tune("apply", "--power-limit", "400", "--gpu", "0", "--confirm", "1", "--yes")
    assert ran.code == 0, ran.err
    assert "restored" in ran.out
    assert stock(driver)
    assert journals(tmp_path) == []


def test_a_stale_journal_is_refused_until_it_is_restored(tune, driver, tmp_path) -> None:
    assert tune("apply", "--power-limit", "400", "--gpu", "0", "--yes").code == 0
    (path,) = (tmp_path / "state").glob("gpu-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "restoring"}))
    refused = tune("apply", "--power-limit", "500", "--gpu", "0", "--yes")
    assert (refused.code, "restore" in refused.err) == (2, True)
    assert tune("restore", "--all").code == 0
    assert stock(driver)
    path.write_text("{torn")
    damaged = tune("restore")
    assert (damaged.code, "damaged" in damaged.err) == (2, True)


def test_a_second_process_is_refused(tune, driver, tmp_path) -> None:
    words = ["gpu-tune", "apply", "--power-limit", "400", "--gpu", "0", "--confirm", "60", "--yes"]
    environment = os.environ | driver.environment | {"VCELL_GPU_STATE": str(tmp_path / "state")}
    first = subprocess.Popen(
        [sys.executable, "-m", "vcell", *words],
        cwd=tmp_path, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(lambda: driver[0].power_limit == 400_000)
        second = tune("apply", "--power-limit", "500", "--gpu", "0", "--yes")
        assert second.code == 2
        assert "another vcell gpu-tune" in second.err
    finally:
        first.terminate()  # not caught: the watchdog restores
        first.communicate(timeout=PATIENCE)
    wait_until(lambda: stock(driver) and journals(tmp_path) == [])


def test_readings_are_logged(tune, driver, tmp_path) -> None:
    log = tmp_path / "gpu.jsonl"
    ran = tune("monitor", "--readings", "2", "--interval", "0.1", "--log-file", str(log))
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["gpu"] for line in lines] == [0, 1, 0, 1]
    assert {"watts", "mhz", "celsius", "energy_j"} <= lines[0].keys()


@pytest.mark.parametrize("words", [["status"], ["apply", "--power-limit", "400"], ["restore"]])
def test_a_machine_without_a_driver_says_so(vcell, words) -> None:
    ran = vcell("gpu-tune", *words)
    assert ran.code == 2
    assert "there is no GPU" in ran.err


def test_apply_reads_the_project_file(tune, driver, tmp_path) -> None:
    (tmp_path / "vcell.toml").write_text('[gpu-tune]\npower-limit = "50%"\n')
    assert tune("apply", "--gpu", "0", "--yes").code == 0
    assert driver[0].power_limit == 350_000
