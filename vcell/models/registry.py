"""The announced models, by name."""

from __future__ import annotations

import functools

from vcell import console
from vcell.errors import UserError
from vcell.models.protocols import Model
from vcell.plugin import announced
from vcell.suggest import did_you_mean

GROUP = "vcell.models"


def names() -> list[str]:
    """List the announced models; nothing is imported."""
    return list(announced(GROUP).found)


def get(name: str) -> Model:
    """Import one model by name; warn if two have the name."""
    every = announced(GROUP)
    found = every.found.get(name)
    if found is None:
        known = ", ".join(every.found) or "none are installed"
        raise UserError(
            f"{name!r} is not a model{did_you_mean(name, every.found)}", hint=f"models: {known}"
        )
    for problem in every.problems:
        if problem.startswith(f"model {name!r} of"):
            _warn(problem)
    loaded = found.entry_point.load()
    if not isinstance(loaded, Model):
        raise UserError(
            f"the model {name!r} ({found.target}) lacks fit or load",
            hint="see vcell.models for what a model must have",
        )
    return loaded


@functools.cache
def _warn(problem: str) -> None:
    """Warn once."""
    console.warn(problem)
