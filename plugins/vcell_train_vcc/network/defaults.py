"""Defaults for training a network, by the size of the screen and the memory of the GPU.

Pure functions. On a CPU the declared defaults apply, which were chosen on simulated screens. On a
GPU, the number of steps depends on the size of the screen, and the micro-batch on the memory of
one card. The batch does not depend on the number of GPUs, so the result does not either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vcell.nn.estimate import estimate
from vcell.nn.presets import PRESETS
from vcell.train.left_open import Choice, Machine

if TYPE_CHECKING:
    from vcell_train_vcc import TrainVcc

EPOCHS = 20  # over all sets; validation picks the best state, patience may stop earlier
BATCH = 64  # sets per step, over all devices
STEPS = (500, 20_000)  # minimum and maximum
VALIDATIONS = 50
_RATES = {"tiny": 1e-3, "small": 5e-4, "base": 3e-4, "large": 1.5e-4}  # peak, lower with width
_SHARE = 0.8  # of a card's memory; the rest is for fragmentation and the driver
_COMPILED_FROM = 300  # steps; compiling takes one or two minutes


@dataclass(frozen=True)
class Size:
    """The size of the training data."""

    cells: int  # perturbed cells
    sets: int  # per epoch
    perturbations: int
    genes: int


def choose(config: TrainVcc, free: Iterable[str], size: Size, machine: Machine) -> list[Choice]:
    """Choose settings that are left open, for a screen on a machine."""
    if machine.kind != "cuda":
        return []
    preset = "base" if config.preset == "auto" else config.preset
    decided: list[Choice] = []
    open_, on = set(free), True

    def decide(name: str, value: Any, reason: str) -> Any:
        if name not in open_:
            return getattr(config, name)
        if value != getattr(config, name):
            decided.append(Choice(name, value, reason))
        return value

    batch = decide("batch_size", min(BATCH, max(size.sets, machine.world)), "sets a step on a GPU")
    needed = math.ceil(EPOCHS * size.sets / batch)
    steps = min(max(needed, STEPS[0]), STEPS[1])
    why = f"{EPOCHS} epochs of {size.sets:,} sets, {size.cells:,} perturbed cells"
    if steps != needed:
        why += f", within {STEPS[0]:,} to {STEPS[1]:,}"
    steps = decide("max_steps", steps, why)
    decide("lr", _RATES[preset], f"peak for preset {preset}")
    every = max(steps // VALIDATIONS, 1)
    decide("validate_every", every, f"{VALIDATIONS} validations choose the model")
    decide("checkpoint_every", 2 * every, "with every second validation")
    decide("patience", VALIDATIONS // 4, "a quarter of the validations without a better one")
    decide("ema", round(max(0.97, 1 - 10 / steps), 5), "averages over the last tenth of the steps")
    fit, recomputed = pieces(config, preset, -(-batch // machine.world), size, machine)
    of = f"of {machine.memory / 1e9:.0f} GB on {machine.name}"
    if recomputed:
        decide("checkpoint_activations", on, f"to fit {_SHARE:.0%} {of}")
    if fit:
        decide("micro_batch", fit, f"sets at once in {_SHARE:.0%} {of}")
    if steps >= _COMPILED_FROM and config.strategy == "standard":
        decide("compile", on, f"pays for itself in {steps:,} steps")
    return decided


def pieces(
    config: TrainVcc, preset: str, share: int, size: Size, machine: Machine
) -> tuple[int | None, bool]:
    """Return the micro-batch, None for the whole share, and whether to recompute activations.

    They are recomputed only if not even one set fits without that.
    """
    if not machine.memory or config.model != "transformer":
        return None, False
    tokens = 2 + min(size.genes, config.tokens or 5000)
    half = config.precision == "fp16" or (machine.bf16 and config.precision in ("auto", "bf16"))
    for recomputed in (config.checkpoint_activations, True):
        n = share
        while n >= 1:
            cost = estimate(
                PRESETS[preset], tokens, n * config.pseudo, device="cuda",
                dtype=torch.bfloat16 if half else torch.float32, checkpointing=recomputed,
                ema=config.ema > 0, step_seconds=1.0,
            )  # fmt: skip
            if cost.memory_bytes + bank(size) <= _SHARE * machine.memory:
                return (None if n == share else n), recomputed
            n //= 2
    return 1, True


def bank(size: Size) -> int:
    """Return the bytes of the training effects in the retrieval loss."""
    return 4 * size.perturbations * min(size.genes, 5000)
