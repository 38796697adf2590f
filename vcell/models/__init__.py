"""Perturbation models by name: train-vcc trains them, predict uses them, others may add more.

A model is an object announced in the entry-point group ``vcell.models`` that can `fit` the screen
of a run directory and `load` from it what it learnt, as a `Predictor`. No other code needs to know
how it works: predict and evaluate find it by the name that the run stores.

Each optional ability of a model has a protocol: `Prepares`, `Uncertain`, `LeavesOneOut`,
`Disagrees`, `Explains`.

    [project.entry-points."vcell.models"]
    my-model = "my_package:model"
"""

from vcell.models.protocols import (
    Disagrees,
    Explains,
    Explanation,
    LeavesOneOut,
    Model,
    Predictor,
    Prepares,
    Uncertain,
)
from vcell.models.registry import GROUP, get, names
from vcell.screen import SCREEN, Screen, members, read_genes, read_perturbations

__all__ = [
    "GROUP",
    "SCREEN",
    "Disagrees",
    "Explains",
    "Explanation",
    "LeavesOneOut",
    "Model",
    "Predictor",
    "Prepares",
    "Screen",
    "Uncertain",
    "get",
    "members",
    "names",
    "read_genes",
    "read_perturbations",
]
