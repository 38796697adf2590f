"""The prediction, shared by the modules that compute and report it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcell_predict.requests import Request
from vcell_predict.strength.calibration import Strengths
from vcell_predict.uncertainty import Trust


@dataclass
class Prediction:
    """Predicted effects (P,), one for each perturbation in a context, in the order of the file."""

    requests: list[Request]
    cells: NDArray[np.int64]
    effect: NDArray[np.float32]  # (P, N), as written
    blind: list[str]  # predicted by the mean effect
    sources: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # of uncertainty, by name
    trust: Trust | None = None
    strengths: Strengths | None = None
    n_controls: int = 0
    #: By context: variance (N,) of log values over control cells, and the number of these cells.
    spread: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)
