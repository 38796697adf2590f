"""Which settings may differ between a run and its resumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vcell.errors import UserError
from vcell.train.options import TrainOptions

# The order of the data depends on the seed: a position means nothing with another one.
_FIXED = frozenset({"seed"})
# A change of these makes the run differ from an uninterrupted one, on purpose; it is reported.
_REPORTED = frozenset(
    [
        "batch_size",
        "max_steps",
        "lr",
        "schedule",
        "warmup",
        "final_lr",
        "weight_decay",
        "clip_norm",
        "ema",
        "precision",
    ]
)


def plain(options: TrainOptions) -> dict[str, Any]:
    """Return the settings of training, without those of the model or data, for state.json."""
    names = (field.name for field in dataclasses.fields(TrainOptions))
    values = {name: getattr(options, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def compare(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return messages about changed settings; raise an error for those that cannot change."""
    changed = {name: (saved[name], now[name]) for name in saved if saved[name] != now.get(name)}
    for name in sorted(_FIXED & changed.keys()):
        before, after = changed[name]
        raise UserError(
            f"{name} was {before} in this run and is {after} now",
            hint=f"resume with --{name} {before}, or start a new run",
        )
    return [
        f"{name.replace('_', '-')} was {changed[name][0]} and is {changed[name][1]} from here on"
        for name in sorted(_REPORTED & changed.keys())
    ]


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise an error if the model or the data changed."""
    for name in sorted({*saved, *now}):
        if saved.get(name) != now.get(name):
            raise UserError(
                f"{name} was {saved.get(name)!r} in this run and is {now.get(name)!r} now",
                hint="resume with the model and data as they were, or start a new run",
            )
