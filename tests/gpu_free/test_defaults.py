"""What nobody set, on GPUs, from the screen, the card and its memory; estimates without a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.network.defaults import Size, choose

from vcell.data.simulate import Simulator
from vcell.errors import UserError
from vcell.gpu.published import SHEETS, seconds, sheet
from vcell.train.left_open import Machine, left_open

if TYPE_CHECKING:
    from tests.support import Ran

# 220,000 cells x 18,080 genes and 150 perturbations, of which 102 are learned from
CHALLENGE = Size(cells=125_000, sets=3_960, perturbations=102, genes=18_080)
H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 85_899_345_920, bf16=True)


def chosen(machine: Machine, size: Size = CHALLENGE, **given: Any) -> dict[str, Any]:
    config = TrainVcc(**given)
    free = left_open(config, dict.fromkeys(given, "command line"))
    return {one.name: one.value for one in choose(config, free, size, machine)}


def test_a_screen_of_the_challenges_size_on_four_h100s() -> None:
    found = chosen(dataclasses.replace(H100, world=4))
    assert found == {
        "batch_size": 64,
        "max_steps": 1_238,  # 20 epochs of 3,960 sets
        "lr": 3e-4,
        "validate_every": 24,
        "checkpoint_every": 48,
        "patience": 12,
        "ema": 0.99192,
        "compile": True,
    }


def test_one_gpu_trains_as_four_do_only_in_more_pieces() -> None:
    small = dataclasses.replace(H100, name="NVIDIA A10", memory=24 << 30)
    plans = [chosen(dataclasses.replace(small, world=n)) for n in (1, 2, 4)]
    sizes = [plan.pop("micro_batch", None) for plan in plans]
    assert plans[0] == plans[1] == plans[2]
    assert sizes[0] == sizes[1] == 16  # of 64 and 32
    assert sizes[2] is None  # a share of 16 fits


def test_steps_follow_the_screen_within_bounds() -> None:
    for sets, steps in ((10, 500), (3_960, 1_238), (40_000, 12_500), (1_000_000, 20_000)):
        assert chosen(H100, dataclasses.replace(CHALLENGE, sets=sets))["max_steps"] == steps


def test_what_was_given_is_kept() -> None:
    found = chosen(H100, max_steps=777, lr=0.5, batch_size=7)
    assert not {"max_steps", "lr", "batch_size"} & found.keys()
    # a value that a sweep set is not the default either
    assert "lr" not in {c.name for c in choose(TrainVcc(lr=0.5), {"ema"}, CHALLENGE, H100)}


def test_a_cpu_keeps_what_was_measured_there() -> None:
    assert chosen(Machine("cpu")) == {}


def test_a_large_model_on_a_small_card_is_recomputed() -> None:
    tiny_card = Machine("cuda", "NVIDIA T4", 3 << 30)
    found = chosen(tiny_card, preset="large", tokens=5000)
    assert found["checkpoint_activations"]
    assert found["micro_batch"] == 1


def test_every_choice_has_a_reason() -> None:
    config = TrainVcc()
    for one in choose(config, left_open(config, {}), CHALLENGE, H100):
        assert len(one.reason) > 10
        assert one.name.replace("_", "-") in str(one)


# --- estimates on paper


def test_sheets_are_found_by_name_and_others_refused() -> None:
    assert sheet("H100").memory == 80
    assert sheet("a100_40").memory == 40
    with pytest.raises(UserError, match=r"did you mean h100"):
        sheet("h10")


@pytest.mark.parametrize("name", SHEETS)
def test_time_falls_with_rates_and_rises_with_work(name: str) -> None:
    card = SHEETS[name]
    least, most = seconds(card, 1e15, 1e9, "fp16")
    assert 0 < least < most
    assert least > 1e15 / card.peak("fp16")  # no card reaches its peak
    assert seconds(card, 2e15, 1e9, "fp16")[0] > least
    assert seconds(card, 1e15, 1e9, "fp32")[0] > least


def test_cards_before_ampere_have_neither_bf16_nor_tf32() -> None:
    for name, card in SHEETS.items():
        old = card.capability < (8, 0)
        assert (card.peak("bf16") == card.peak("fp32")) == old, name
        assert (card.peak("tf32") == card.peak("fp32")) == old or name == "rtx3090", name


@pytest.mark.slow
def test_an_estimate_for_a_card_that_is_not_here(vcell: Callable[..., Ran], tmp_path: Path) -> None:
    cells = tmp_path / "cells.h5ad"
    Simulator(cells=900, genes=300, perturbations=12, batches=2, seed=1).write(cells)
    words = ("train-vcc", cells, "--estimate", "--device", "cuda", "--preset", "tiny")
    told = vcell(*words, "--gpu", "h100", "--gpus", "4", "--json")
    assert told.code == 0, told.err
    found = told.json
    assert found["device"] == "NVIDIA H100 SXM5 80GB"
    assert found["precision"] == "bf16"
    assert "not measured" in found["from"]
    assert found["in_all"]["steps"].startswith("500 of")
    assert "kWh" in found["in_all"]
    slow = vcell(*words, "--gpu", "t4", "--json").json
    assert slow["precision"] == "fp32"  # no bf16 before Ampere
    assert slow["estimate"]["step_seconds"] > found["estimate"]["step_seconds"]
    assert vcell("train-vcc", cells, "--gpu", "h100").code == 2
