"""PDS and MAE of pseudobulks as tensors, on the device they are on; the one module with torch.

The same numbers as `vcell.metrics.vcc2025` to 1e-6, in float64. MAE has a gradient; the rank of PDS
has none.

Legend: ``P`` perturbations, ``G`` genes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def absolute_error(real: Tensor, pred: Tensor) -> Tensor:
    """``mae``: mean absolute difference of each row, ``[P]``."""
    return (pred.double() - real.double()).abs().mean(dim=1)


def distances(
    real: Tensor, pred: Tensor, target: Tensor, metric: Literal["l1", "l2", "cosine"] = "l1"
) -> Tensor:
    """Return ``[P, P]`` distances of every predicted effect (rows) to every real one.

    ``target[p]`` is the column of perturbation p's own gene, left out of row p; -1 for none.
    """
    truth, guess = real.double(), pred.double()
    # [P, 1] and [P, P]: what the left-out column holds of a row's own effect and of every real one
    column = target.clamp(min=0)
    has = (target >= 0).to(truth.dtype)[:, None]
    own = guess.gather(1, column[:, None]) * has
    theirs = truth[:, column].T * has
    if metric == "l1":
        left_out = (theirs - own).abs()
        return torch.cdist(guess, truth, p=1) - left_out
    dots = guess @ truth.T - own * theirs
    squares = guess.square().sum(dim=1, keepdim=True) - own.square()
    others = truth.square().sum(dim=1) - theirs.square()
    if metric == "l2":
        return (squares + others - 2 * dots).clamp(min=0).sqrt()
    norms = (squares.clamp(min=0) * others.clamp(min=0)).sqrt()
    return 1 - torch.where(norms > 0, dots / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)


def discrimination(distance: Tensor) -> Tensor:
    """``discrimination_score``: 1 - rank / P of the true effect; ties take their mean rank."""
    own = distance.diagonal()[:, None]
    nearer, equal = (distance < own).sum(dim=1), (distance == own).sum(dim=1)
    return 1 - (nearer + (equal - 1) / 2) / len(distance)
