"""The models of `vcell train-graph`, by name: announced as ``vcell.graph_models``.

A model has ``name``, ``summary``, ``graphs`` (whether it looks at them) and ``takes_steps``. One
that takes steps has ``build(problem, config)``, which returns a module that adds to a prior; else
``fit(problem, groups)`` returns its predictions for every set (`closed.Told`).
"""

from __future__ import annotations

from typing import Any

from vcell.errors import UserError
from vcell.plugin import announced
from vcell.suggest import did_you_mean

GROUP = "vcell.graph_models"


def get(name: str) -> Any:
    """Import a model by name."""
    every = announced(GROUP).found
    if name not in every:
        raise UserError(
            f"{name!r} is not a model{did_you_mean(name, every)}",
            hint=f"models: {', '.join(every)}",
        )
    model = every[name].entry_point.load()
    if missing := [k for k in ("summary", "graphs", "takes_steps") if not hasattr(model, k)]:
        raise UserError(f"the model {name!r} ({every[name].target}) lacks {missing[0]}")
    return model
