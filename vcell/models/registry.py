"""The announced models, by name."""

from __future__ import annotations

from importlib import metadata

from vcell.errors import UserError
from vcell.models.protocols import Model
from vcell.suggest import did_you_mean

GROUP = "vcell.models"


def names() -> list[str]:
    """List the announced models; nothing is imported."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def get(name: str) -> Model:
    """Import one model by name."""
    points = [point for point in metadata.entry_points(group=GROUP) if point.name == name]
    if not points:
        known = ", ".join(names()) or "none are installed"
        raise UserError(
            f"{name!r} is not a model{did_you_mean(name, names())}", hint=f"models: {known}"
        )
    loaded = points[0].load()
    if not isinstance(loaded, Model):
        raise UserError(
            f"the model {name!r} ({points[0].value}) lacks fit or load",
            hint="see vcell.models for what a model must have",
        )
    return loaded
