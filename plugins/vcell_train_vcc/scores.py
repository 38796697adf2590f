"""How well effects are predicted, in the challenge's terms, from pseudobulk alone.

The official scores are made from cells by `vcell evaluate`; these are for choosing a model while
it trains and for the table of baselines. P perturbations, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def discrimination(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> float:
    """PDS (L1): mean of 1 - rank / P of the true effect among all, the target gene left out."""
    total = 0.0
    for i, effect in enumerate(predicted):
        gap = np.abs(real - effect)
        distance = gap.sum(axis=1) - (gap[:, target[i]] if target[i] >= 0 else 0)
        nearer = (distance < distance[i]).sum() + ((distance == distance[i]).sum() - 1) / 2
        total += 1 - nearer / len(real)
    return float(total / len(predicted))


def scores(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, float]:
    """Return PDS, MAE and the mean correlation of effects."""
    zip(predicted, real, strict=True)
    return {
        "pds": discrimination(predicted, real, target),
        "mae": float(np.abs(predicted - real).mean()),
        "delta_correlation": float(
            np.mean([_correlation(a, b) for a, b in zip(predicted, real, strict=True)])
        ),
    }


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson's, 0 where one side is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def gain(model: dict[str, float], baseline: dict[str, float]) -> float:
    """Return the challenge's scaled score over a baseline: mean gain in PDS and MAE, at most 1."""
    pds = (model["pds"] - baseline["pds"]) / max(1 - baseline["pds"], 1e-9)
    return (pds + 1 - model["mae"] / baseline["mae"]) / 2
