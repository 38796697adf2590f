"""The models of `vcell train-graph`, by name: announced as ``vcell.graph_models``.

A model has ``name``, ``summary``, ``graphs`` (whether it uses graphs) and ``takes_steps``. A model
trained in steps has ``build(problem, config)``, which returns a module that predicts the residual
of a prior; others have ``fit(problem, groups)``, which returns predictions of every set
(`closed.SetPredictions`).
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
