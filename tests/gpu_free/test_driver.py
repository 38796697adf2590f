"""What a driver tells of its cards, with its oddities, and whether torch can use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml import LOST, MISMATCH, NO_PERMISSION, NOT_SUPPORTED, FakeNvml
from tests.support import Ran
from vcell.errors import UserError
from vcell.gpu.agreement import TorchSees, checked, disagreement
from vcell.gpu.nvml import Device, Devices
from vcell.launch import LaunchOptions, make_plan
from vcell.train import parallel

ASK = """
import dataclasses, json
from vcell.gpu.nvml import devices
print(json.dumps(dataclasses.asdict(devices())))
"""
UUID = "GPU-{}ab1c2d3-0000-4000-8000-00000000000{}"


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path, cards=4)


def seen(nvml: FakeNvml, visible: str | None = None) -> dict[str, Any]:
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | nvml.environment
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    words = [sys.executable, "-c", ASK]
    return json.loads(subprocess.run(words, env=env, capture_output=True, check=True).stdout)


def numbers(nvml: FakeNvml, visible: str | None = None) -> list[int]:
    return [device["index"] for device in seen(nvml, visible)["devices"]]


# --- the driver alone


def test_all_cards_and_those_that_are_visible(nvml: FakeNvml) -> None:
    found = seen(nvml)
    assert [d["index"] for d in found["devices"]] == [0, 1, 2, 3]
    assert found["driver"] == "580.65.06"
    assert found["devices"][0]["capability"] == [9, 0]
    assert numbers(nvml, "2,0") == [2, 0]
    assert numbers(nvml, "") == []
    assert numbers(nvml, "-1") == []
    assert numbers(nvml, f"{UUID.format(3, 3)},GPU-1ab") == [3, 1]


def test_a_number_that_is_none_ends_the_list_and_is_told(nvml: FakeNvml) -> None:
    found = seen(nvml, "1,7,0")
    assert [d["index"] for d in found["devices"]] == [1]
    assert found["problems"] == ["CUDA_VISIBLE_DEVICES='1,7,0': there is no GPU 7"]


def test_a_card_named_twice_leaves_none_as_in_cuda(nvml: FakeNvml) -> None:
    for visible in ("0,0", "1,0,1", f"0,{UUID.format(0, 0)}"):
        found = seen(nvml, visible)
        assert found["devices"] == []
        assert "names a GPU twice" in found["reason"]


def test_an_instance_of_a_card_in_mig_mode(nvml: FakeNvml) -> None:
    nvml[1].migs = 3
    mig = "MIG-1" + UUID.format(1, 1)[4:]
    (found,) = seen(nvml, mig)["devices"]
    assert (found["name"], found["memory"], found["parent"]) == (
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        10 << 30,
        UUID.format(1, 1),
    )
    assert numbers(nvml, f"MIG-{UUID.format(1, 1)}/1/0") == [1]
    (first,) = seen(nvml, "1")["devices"]
    assert first["uuid"].startswith("MIG-0")
    both = seen(nvml, f"{mig},MIG-0{UUID.format(1, 1)[4:]}")
    assert len(both["devices"]) == 1
    assert "one MIG instance at a time" in both["problems"][0]


def test_one_lost_card_hides_no_other(nvml: FakeNvml) -> None:
    nvml[2].error = LOST
    found = seen(nvml)
    assert [d["index"] for d in found["devices"]] == [0, 1, 3]
    assert found["problems"] == ["GPU 2 does not answer (GPU is lost)"]
    nvml[2].error = 0
    nvml.hooks = f"FAIL=nvmlDeviceGetHandleByIndex_v2:{LOST}@0"
    assert numbers(nvml) == [1, 2, 3]


@pytest.mark.parametrize("what", ["MemoryInfo", "Name", "CudaComputeCapability", "MigMode"])
def test_what_a_card_does_not_tell_is_unknown(nvml: FakeNvml, what: str) -> None:
    nvml.hooks = f"FAIL=nvmlDeviceGet{what}:{NOT_SUPPORTED}"
    found = seen(nvml)["devices"]
    assert len(found) == 4
    if what == "MemoryInfo":
        assert found[0]["memory"] == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (NO_PERMISSION, "this user may not query"),
        (MISMATCH, "updated under the running kernel"),
        (9, "no NVIDIA driver answers"),
        (999, "no NVIDIA driver answers"),
    ],
)
def test_a_driver_that_does_not_answer_says_why(nvml: FakeNvml, code: int, said: str) -> None:
    nvml.hooks = f"FAIL=nvmlInit:{code}"
    found = seen(nvml)
    assert found["devices"] == []
    assert said in found["reason"]


def test_odd_answers_hide_nothing(nvml: FakeNvml) -> None:
    nvml[0].name, nvml[1].memory, nvml[3].uuid = b"\xff\xfe H100", 0, b"\xc3\x28"
    found = seen(nvml)
    assert [(d["index"], d["name"][:5]) for d in found["devices"]] == [
        (0, "a GPU"), (1, "NVIDI"), (2, "NVIDI"),
    ]  # fmt: skip
    assert found["devices"][1]["memory"] == 0
    assert found["problems"][0].startswith("GPU 3 does not answer")


@pytest.mark.parametrize(
    ("visible", "kept"),
    [
        (" 1 , 2 ", [1, 2]),
        ("2,", [2]),
        ("0,-1,1", [0]),
        ("0,,1", [0]),
        ("-2", []),
        ("GPU-", []),  # of all cards alike
        ("99999999999999999999", []),
        ("NoDevFiles", []),
        ("MIG-", []),
        ("GPU-nobody,0", []),
        ("all", []),
    ],
)
def test_lists_that_people_write(nvml: FakeNvml, visible: str, kept: list[int]) -> None:
    found = seen(nvml, visible)
    assert [d["index"] for d in found["devices"]] == kept
    assert kept or found["reason"]


def test_a_driver_that_fails_in_the_middle_is_a_reason(nvml: FakeNvml) -> None:
    nvml.hooks = f"FAIL=nvmlDeviceGetCount_v2:{LOST}"
    found = seen(nvml)
    assert found["devices"] == []
    assert "GPU is lost" in found["reason"]


def test_eight_cards_and_an_old_driver(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, cards=8)
    nvml.hooks = "FAIL=nvmlDeviceGetMigMode:13 FAIL=nvmlSystemGetDriverVersion:13"
    found = seen(nvml)
    assert (len(found["devices"]), found["driver"]) == (8, "unknown")


# --- the driver and torch

FOUR = Devices(
    tuple(Device(i, "H100", 80 << 30, f"GPU-{i}", (9, 0)) for i in range(4)), driver="580"
)
GOOD = TorchSees("2.13.0+cu130", "13.0", 4, "", ("sm_80", "sm_90", "compute_90"))


@pytest.mark.parametrize(
    ("torch", "usable", "said"),
    [
        (GOOD, 4, ""),
        (TorchSees("2.13.0+cpu", None, 0), 0, "built without CUDA"),
        (TorchSees("2.13", "13.0", 0, "driver is too old (11040)"), 0, "too old (11040)"),
        (TorchSees("2.13", "13.0", 3, "", ("sm_90",)), 3, "torch can use 3 of them"),
        (TorchSees("2.13", "13.0", 4, "", ("sm_100", "sm_120")), 0, "capability 9.0"),
        (TorchSees("2.13", "13.0", 4, "", ("sm_80", "compute_80")), 4, ""),
        (TorchSees("2.13", "13.0", 4, "", ("sm_90a",)), 4, ""),
    ],
)
def test_torch_and_the_driver_are_compared(torch: TorchSees, usable: int, said: str) -> None:
    problem, remedy = disagreement(FOUR, torch)
    assert said in problem
    assert bool(problem) == bool(remedy)
    found = checked(FOUR, torch)
    assert (len(found.devices), found.reason) == (usable, problem)


def test_auto_goes_on_with_the_cpu_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    unusable = checked(FOUR, TorchSees("2.13.0+cpu", None, 0))
    for gpus in ("1", "auto"):
        assert make_plan(LaunchOptions(gpus=gpus), {}, unusable).device == "cpu"
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert "built without CUDA" in lines[0]
    for words in ({"device": "cuda"}, {"gpus": "4"}):
        with pytest.raises(UserError, match="built without CUDA") as caught:
            make_plan(LaunchOptions(**words), {}, unusable)
        assert "pytorch.org" in (caught.value.hint or "")


LAUNCH = Path(__file__).parents[1] / "launch"


def launched(nvml: FakeNvml, cwd: Path, *words: str) -> Ran:
    done = subprocess.run(
        [sys.executable, LAUNCH / "run_it.py", *words],
        cwd=cwd,
        env=os.environ | nvml.environment | {"PYTHONPATH": str(LAUNCH)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_run_on_a_machine_whose_torch_has_no_cuda(nvml: FakeNvml, tmp_path: Path) -> None:
    """The tests' torch is a CPU build, and this machine's driver tells of four H100s."""
    if _torch_has_cuda():
        pytest.skip("this torch is built for CUDA")
    auto = launched(nvml, tmp_path, "joined", "device=auto")
    assert (auto.code, "bug" in auto.err) == (0, False), auto.err
    assert "computing on the CPU" in auto.err
    asked = launched(nvml, tmp_path, "joined", "device=cuda")
    assert asked.code == 2
    assert "built without CUDA" in asked.err


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None


def test_a_gpu_that_cannot_be_taken_is_told_in_words() -> None:
    if _torch_has_cuda():
        pytest.skip("this torch is built for CUDA")
    with pytest.raises(UserError, match="GPU 0 cannot be used"), parallel.joined("cuda"):
        pass


def test_doctor_compares_the_two(nvml: FakeNvml, vcell: Callable[..., Ran]) -> None:
    if _torch_has_cuda():
        pytest.skip("this torch is built for CUDA")
    nvml[3].error = LOST
    told = vcell("doctor", "--json", env=nvml.environment)
    findings = {(f["what"], f["state"]): f for f in told.json["findings"]}
    assert told.code == 1
    assert "built without CUDA" in findings["torch and the driver", "MISSING"]["found"]
    assert "GPU 3 does not answer" in findings["NVIDIA GPUs", "note"]["found"]
