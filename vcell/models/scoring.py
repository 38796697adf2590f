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


def each(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return PDS, MAE and correlation of each effect; a constant effect correlates as 0."""
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    return {
        "pds": vcc2025.discrimination(vcc2025.distances(truth, guess, target)),
        "mae": vcc2025.absolute_error(truth, guess),
        "delta_correlation": np.nan_to_num(vcc2025.pearson(truth, guess)),
    }


def mean_of(found: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the means over perturbations."""
    return {name: float(values.mean()) for name, values in found.items()}


def scores(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, float]:
    """Return the mean scores of effects."""
    return mean_of(each(predicted, real, target))


def gain(model: dict[str, float], baseline: dict[str, float]) -> float:
    """Return the challenge's scaled score over a baseline: mean gain in PDS and MAE, at most 1."""
    pds = (model["pds"] - baseline["pds"]) / max(1 - baseline["pds"], 1e-9)
    return (pds + 1 - model["mae"] / baseline["mae"]) / 2
