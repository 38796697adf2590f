"""The announced models, by name."""

from __future__ import annotations

from vcell import console, plugin
from vcell.errors import UserError
from vcell.models.protocols import Model
from vcell.suggest import did_you_mean

GROUP = "vcell.models"


def names() -> list[str]:
    """List the announced models; nothing is imported."""
    return list(plugin.announced(GROUP, "model")[0])


def get(name: str) -> Model:
    """Import one model by name."""
    points, ignored = plugin.announced(GROUP, "model")
    if name not in points:
        known = ", ".join(points) or "none are installed"
        raise UserError(
            f"{name!r} is not a model{did_you_mean(name, points)}", hint=f"models: {known}"
        )
    for problem in ignored:
        if repr(name) in problem:
            console.warn(problem)
    loaded = points[name].entry_point.load()
    if not isinstance(loaded, Model):
        raise UserError(
            f"the model {name!r} ({points[name].target}) lacks fit or load",
            hint="see vcell.models for what a model must have",
        )
    return loaded
