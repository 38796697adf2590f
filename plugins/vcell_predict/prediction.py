"""The prediction, which the other modules fill in and report."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcell_predict.asked import Asked
from vcell_predict.strength.calibration import Strengths
from vcell_predict.uncertainty import Trust


@dataclass
class Prediction:
    """What is predicted: one entry a perturbation in a context (P,), in the order of the file."""

    asked: list[Asked]
    cells: NDArray[np.int64]
    effect: NDArray[np.float32]  # (P, N), as written
    blind: list[str]  # predicted by the mean
    sources: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # of uncertainty
    trust: Trust | None = None
    strengths: Strengths | None = None
    n_controls: int = 0
    #: Of each context: the variance (N,) of log values over control cells, and how many there are.
    spread: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)
