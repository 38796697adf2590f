"""A small model of unseen perturbations: features of the target -> coefficients -> all genes.

    effect = offset + (linear(f) + mlp(f)) @ basis;  the target's own gene: control x (share - 1)

`offset` and `basis` are the mean and the leading directions of the training effects, fixed: left
to learn, forty perturbations are learnt by heart within a few steps. Both maps start at zero, so
that the model starts as the mean baseline and earns what it adds.
P perturbations in a batch, N genes, F features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Bilinear(nn.Module):
    """Low-rank bilinear model with a small residual network."""

    offset: Tensor
    basis: Tensor
    control: Tensor

    def __init__(
        self,
        control: NDArray[np.float32],
        delta: NDArray[np.float32],
        n_features: int,
        rank: int,
        hidden: int,
        dropout: float,
        own: float = 0.0,
    ) -> None:
        super().__init__()
        mean, basis = start(delta, rank)
        self.register_buffer("offset", torch.from_numpy(mean))
        self.register_buffer("basis", torch.from_numpy(basis))
        self.linear = nn.Linear(n_features, len(basis), bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(basis)),
        )
        self.own = nn.Parameter(torch.tensor(own))  # log of the share of the target that is left
        nn.init.zeros_(self.linear.weight)
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("control", torch.from_numpy(control.astype(np.float32)))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the effect (P, N) of perturbing the genes `target` (P,), -1 for none."""
        coefficients = self.linear(features) + self.mlp(features)
        effect: Tensor = self.offset + coefficients @ self.basis
        own = torch.expm1(self.own) * self.control[target.clamp(min=0)]
        column = target.clamp(min=0)[:, None]
        own = torch.where(target >= 0, own, effect.gather(1, column)[:, 0]).to(effect.dtype)
        return effect.scatter(1, column, own[:, None])


def start(delta: NDArray[np.float32], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean effect (N,) and leading directions (R, N) scaled to unit coefficients."""
    mean = delta.mean(axis=0)
    _, values, genes = np.linalg.svd(delta - mean, full_matrices=False)
    rank = max(min(rank, len(delta) - 1), 1)
    basis = genes[:rank] * (values[:rank, None] / np.sqrt(len(delta)))
    return mean.astype(np.float32), basis.astype(np.float32)
