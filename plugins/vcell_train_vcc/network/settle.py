"""Choose the settings that a new run leaves open, and report them with reasons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.config import provenance
from vcell.screen.split import TRAIN
from vcell.train.left_open import Machine, left_open, machine_of, words
from vcell_train_vcc.network.defaults import Size, choose

if TYPE_CHECKING:
    from vcell.launch import Plan
    from vcell.screen import Screen
    from vcell_train_vcc import TrainVcc


def settled(config: TrainVcc, screen: Screen, plan: Plan) -> TrainVcc:
    """Return the settings for a measured screen on the machines of a plan."""
    return applied(config, size_of(screen, config.set_size), machine_of(plan))


def applied(config: TrainVcc, size: Size, machine: Machine) -> TrainVcc:
    """Choose settings, print them and apply them."""
    chosen = choose(config, left_open(config, provenance()), size, machine)
    if chosen:
        console.say(words(chosen))
    return dataclasses.replace(config, **{one.name: one.value for one in chosen})


def size_of(screen: Screen, set_size: int) -> Size:
    """Return the size of the training data."""
    cells = screen.cells[screen.rows(TRAIN)]
    sets = int(np.ceil(cells / set_size).sum())
    return Size(int(cells.sum()), sets, len(cells), len(screen.genes))
