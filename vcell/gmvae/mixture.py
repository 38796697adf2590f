"""The prior of the latent space: a mixture of Gaussians with diagonal covariances.

For a cell with ``q(z|x) = N(m, s^2)`` the distance to component k is the closed form

    KL_k = 1/2 sum_d [ (s^2 + (m - mu_k)^2) / sigma_k^2 - 1 + log sigma_k^2 - log s^2 ].

With a component distribution ``q(k|x)`` that does not depend on z, the optimum and its cost are

    q(k|x) = softmax_k(log pi_k - KL_k),    KL = -logsumexp_k(log pi_k - KL_k),

an upper bound of the distance to the mixture, without sampling and independent of the genes.
B cells, K components, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Mixture(nn.Module):
    """K Gaussians; with labels, component k is label k."""

    def __init__(self, components: int, latent: int, *, labelled: bool) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, latent))
        self.log_variances = nn.Parameter(torch.zeros(components, latent))
        logits = torch.zeros(components)
        # without labels, learnt shares would let one component take all cells
        if labelled:
            self.logits: Tensor = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    @torch.no_grad()
    def share_out(self, cells: Sequence[int] | NDArray[np.int64]) -> None:
        """Give each component the share of the cells that begin in it, and one cell more."""
        shares = torch.as_tensor(cells, dtype=torch.float32) + 1
        self.logits.copy_(torch.log(shares / shares.sum()))

    def forward(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return ``log pi_k - KL_k`` of each cell, (B, K)."""
        wanted = self.log_variances.clamp(-8, 8)
        precision = torch.exp(-wanted)
        square = (log_variance.exp() + mean.square()) @ precision.T
        cross = mean @ (self.means * precision).T
        own = (self.means.square() * precision + wanted).sum(1)
        kl = 0.5 * (square - 2 * cross + own - mean.shape[1] - log_variance.sum(1, keepdim=True))
        return torch.log_softmax(self.logits, 0) - kl
