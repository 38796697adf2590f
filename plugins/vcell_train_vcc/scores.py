"""How well effects are predicted, in the challenge's terms, from pseudobulk alone.

The official scores are made from cells by `vcell evaluate`; these are for choosing a model while
it trains and for the table of baselines. P perturbations, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.metrics import vcc2025

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scores(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, float]:
    """Return PDS, MAE and the mean correlation of effects; a constant effect correlates as 0."""
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    distances = vcc2025.distances(truth, guess, target)
    return {
        "pds": float(vcc2025.discrimination(distances).mean()),
        "mae": float(vcc2025.absolute_error(truth, guess).mean()),
        "delta_correlation": float(np.nan_to_num(vcc2025.pearson(truth, guess)).mean()),
    }


def gain(model: dict[str, float], baseline: dict[str, float]) -> float:
    """Return the challenge's scaled score over a baseline: mean gain in PDS and MAE, at most 1."""
    pds = (model["pds"] - baseline["pds"]) / max(1 - baseline["pds"], 1e-9)
    return (pds + 1 - model["mae"] / baseline["mae"]) / 2
