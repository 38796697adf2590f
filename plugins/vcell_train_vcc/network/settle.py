"""Settle what the settings of a new run leave open, and say so with reasons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.config import provenance
from vcell.gpu.nvml import devices
from vcell.screen.split import TRAIN
from vcell_train_vcc.network.defaults import Choice, Machine, Size, choose, left_open

if TYPE_CHECKING:
    from vcell.launch import Plan
    from vcell.screen import Screen
    from vcell_train_vcc import TrainVcc


def settled(config: TrainVcc, screen: Screen, plan: Plan) -> TrainVcc:
    """Return the settings for a measured screen on the machines of a plan."""
    return applied(config, size_of(screen, config.set_size), machine_of(plan))


def applied(config: TrainVcc, size: Size, machine: Machine) -> TrainVcc:
    """Decide, print and apply."""
    chosen = choose(config, left_open(config, provenance()), size, machine)
    if chosen:
        console.say(words(chosen))
    return dataclasses.replace(config, **{one.name: one.value for one in chosen})


def words(chosen: list[Choice]) -> str:
    """Tell what was decided, a line each."""
    lines = "\n".join(f"  {one}" for one in chosen)
    return f"settings that nobody gave, for this screen on this machine:\n{lines}"


def size_of(screen: Screen, set_size: int) -> Size:
    """Measure how much there is to learn from."""
    cells = screen.cells[screen.rows(TRAIN)]
    sets = int(np.ceil(cells / set_size).sum())
    return Size(int(cells.sum()), sets, len(cells), len(screen.genes))


def machine_of(plan: Plan) -> Machine:
    """Describe the smallest of the devices that the plan uses."""
    if plan.device == "cpu":
        return Machine("cpu", world=plan.world)
    cards = devices().devices[: plan.procs]
    least = min(cards, key=lambda card: card.memory, default=None)
    if least is None:
        return Machine("cuda", "a GPU", world=plan.world)
    return Machine("cuda", least.name, least.memory, least.capability >= (8, 0), plan.world)
