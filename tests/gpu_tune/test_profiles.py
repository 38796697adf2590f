"""Profiles: planned, measured, applied to one run, and refused on another kind of card."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fake_nvml import FakeNvml
from vcell.errors import UserError
from vcell.gpu import profiles
from vcell.gpu.settings import CardSettings
from vcell.runs import Run


@pytest.fixture
def driver(tmp_path):
    return FakeNvml(tmp_path)


@pytest.fixture
def environment(driver, tmp_path):
    return driver.environment | {"VCELL_GPU_STATE": str(tmp_path / "state")}


def profile(folder, card, **settings):
    (folder / "gpu-profiles").mkdir(exist_ok=True)
    content = {"card": card, "settings": settings, "measured": {}}
    (folder / "gpu-profiles" / "best.json").write_text(json.dumps(content))


def test_the_plan_lists_every_setting_and_its_duration(vcell, driver, environment, tmp_path):
    Run.create(tmp_path / "runs", "train-vcc", name="one", worker="a:b").finish("done")
    words = ["gpu-tune", "find-optimal", "--run", "one", "--steps", "2"]
    ran = vcell(*words, "--json", env=environment)
    assert ran.code == 0, ran.err
    assert ran.json["plan"] == [
        ["clock locked to 1485 MHz", "clock locked to 990 MHz"],
        ["power limit 525 W", "power limit 350 W"],
    ]
    assert ran.json["windows"] == 3 * (3 + 4)
    assert driver.calls == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-slowdown", "much"], "is not a share"),
        (["--run", "nothing"], "nothing"),
        (["--window", "2"], "10"),
        (["--name", "../out"], "name of a profile"),
        (["--yes", "--run", "closed"], "no training step"),
    ],
)
def test_a_user_error_is_one_sentence(vcell, driver, environment, tmp_path, words, said):
    Run.create(tmp_path / "runs", "train-vcc", name="one", worker="a:b").finish("done")
    Run.create(tmp_path / "runs", "train-vcc", name="closed").finish("done")
    run = [] if "--run" in words else ["--run", "one"]
    ran = vcell("gpu-tune", "find-optimal", *run, *words, env=environment)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert driver.calls == []


def test_an_earlier_profile_is_replaced_only_with_overwrite(
    vcell, driver, environment, tmp_path, monkeypatch
):
    Run.create(tmp_path / "runs", "train-vcc", name="one", worker="a:b").finish("done")
    monkeypatch.chdir(tmp_path)
    kept = profiles.write("best", "a card", CardSettings(power_limit=400.0), {}).read_bytes()
    words = ["gpu-tune", "find-optimal", "--run", "one", "--steps", "2"]
    ran = vcell(*words, env=environment)
    assert ran.code == 2
    assert "best.json exists" in ran.err
    assert "--overwrite" in ran.err
    planned = vcell(*words, "--overwrite", env=environment)
    assert planned.code == 0, planned.err
    assert (tmp_path / "gpu-profiles" / "best.json").read_bytes() == kept
    profile(tmp_path, "a card of somebody else's")
    assert vcell(*words, "--overwrite", env=environment).code == 2
    assert driver.calls == []


def test_a_profile_is_applied_by_name(vcell, driver, environment, tmp_path):
    profile(tmp_path, "NVIDIA H100 80GB HBM3", clocks=[1500, 1500], power_limit=400.0)
    ran = vcell("gpu-tune", "apply", "--profile", "best", "--yes", env=environment)
    assert ran.code == 0, ran.err
    assert (driver[0].lock_max, driver[0].power_limit) == (1500, 400_000)


def test_a_profile_of_another_card_is_refused(vcell, driver, environment, tmp_path):
    profile(tmp_path, "another card", power_limit=400.0)
    ran = vcell("gpu-tune", "apply", "--profile", "best", "--yes", env=environment)
    assert ran.code == 2
    assert "measured on another card" in ran.err
    (tmp_path / "gpu-profiles" / "best.json").write_text("[1]")
    assert "damaged" in vcell("gpu-tune", "apply", "--profile", "best", env=environment).err


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1]", "[" * 100_000, "{}", '{"card": "A"}',
        *(f'{{"card": "A", "settings": {settings}}}' for settings in (
            "[1]", "3", '{"power_limit": "abc"}', '{"power_limit": NaN}', '{"power_limit": true}',
            '{"clocks": 5}', '{"clocks": [1]}', '{"clocks": ["a", "b"]}', '{"temp_limit": [1, 2]}',
        )),
    ],
)  # fmt: skip
def test_a_damaged_profile_is_reported(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    profile(tmp_path, "A")
    card = SimpleNamespace(name="A")
    assert profiles.read("best", card).names() == []
    (tmp_path / "gpu-profiles" / "best.json").write_text(text)
    with pytest.raises(UserError, match=r"best.json is damaged"):
        profiles.read("best", card)


def test_a_run_without_a_gpu_refuses_a_profile_at_once(vcell, tmp_path):
    profile(tmp_path, "NVIDIA H100 80GB HBM3", power_limit=400.0)
    path = tmp_path / "cells.h5ad"
    assert vcell("simulate", path, "--genes", "60", "--perturbations", "8").code == 0
    ran = vcell("train-vcc", path, "--gpu-profile", "best", "--model", "ridge")
    assert ran.code == 2
    assert "needs GPUs that can be set" in ran.err
    assert not (tmp_path / "runs").exists()


def test_a_run_applies_its_profile_and_restores_the_card(vcell, driver, environment, tmp_path):
    profile(tmp_path, "NVIDIA H100 80GB HBM3", power_limit=400.0)
    path = tmp_path / "cells.h5ad"
    assert vcell("simulate", path, "--genes", "60", "--perturbations", "12").code == 0
    words = ["train-vcc", path, "--gpu-profile", "best", "--model", "ridge", "--device", "cpu"]
    ran = vcell(*words, env=environment, timeout=900)
    assert ran.code == 0, ran.err
    assert "GPU profile best: power limit 400 W" in ran.err
    assert [call[0] for call in driver.calls] == ["SetPowerManagementLimit"] * 2
    assert driver[0].power_limit == 700_000


@pytest.mark.slow
def test_the_best_clock_is_found_and_the_card_restored(vcell, driver, environment, tmp_path):
    # 20 ms a step at any clock, 700 W at the highest: the lowest clock is best, by the cube law
    worker = "tests.gpu_tune.steps:train"
    Run.create(tmp_path / "runs", "toy", name="one", worker=worker, config={}).finish("done")
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    driver[0].load = 1.0
    words = ["gpu-tune", "find-optimal", "--run", "one", "--steps", "2"]
    ran = vcell(*words, "--yes", "--json", env=environment, timeout=3600)
    assert ran.code == 0, ran.err
    best = ran.json["best"]
    assert best["setting"] == {"clocks": [990, 990]}
    watts = 120 + 580 * (990 / driver[0].max_mhz) ** 3
    assert best["joules_a_step"] == pytest.approx(watts * best["seconds_a_step"], rel=0.02)
    assert best["seconds_a_step"] == pytest.approx(0.02, rel=0.02)
    assert (driver[0].lock_max, driver[0].power_limit) == (0, 700_000)
    assert not any((tmp_path / "state").rglob("*.json"))
    page = (tmp_path / "gpu-profiles" / "best.html").read_text()
    assert "clock locked to 990 MHz" in page
    applied = vcell("gpu-tune", "apply", "--profile", "best", "--yes", env=environment)
    assert applied.code == 0, applied.err
    assert driver[0].lock_max == 990
