"""Distances with gradients: between sets of cells, and from effects to a fixed bank of effects.

B sets of S cells each, T genes, C effects of the bank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # widths of the MMD's kernels, relative to the mean distance
BLOCK = 1 << 24  # elements that the backward pass of `taxicab` computes at a time


def energy_distance(cells: Tensor, real: Tensor) -> Tensor:
    """Return (B,) distances of sets of cells (B, S, T) to real ones (Szekely and Rizzo 2013)."""
    across, within, real_within = _distances(cells, real)
    found: Tensor = 2 * across.mean((1, 2)) - _off_diagonal(within) - _off_diagonal(real_within)
    return found


def _distances(cells: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances from cells to real cells, among the cells, and among the real ones."""
    return euclidean(cells, real), euclidean(cells, cells), euclidean(real, real)


def maximum_mean_discrepancy(cells: Tensor, real: Tensor) -> Tensor:
    """Return (B,) MMDs, summed over Gaussian kernels around the mean distance of real cells."""
    across, within, real_within = _distances(cells, real)
    scale = real_within.mean((1, 2), keepdim=True).detach().square()

    def kernel(d: Tensor) -> Tensor:
        return torch.stack([torch.exp(-d.square() / (scale * w)) for w in _WIDTHS]).mean(0)

    alike = _off_diagonal(kernel(within)) + _off_diagonal(kernel(real_within))
    return (alike - 2 * kernel(across).mean((1, 2))) * len(_WIDTHS)


def taxicab(effect: Tensor, bank: Tensor) -> Tensor:
    """Return L1 distances (B, C) of effects (B, T) from a fixed bank (C, T).

    The backward pass of `torch.cdist` stores B x C x T numbers, 11.5 GB for 64 effects and 9,000
    perturbations of 5,000 genes; here they are computed for a part of the bank at a time.
    """
    found: Tensor = _Taxicab.apply(effect, bank)  # type: ignore[no-untyped-call]
    return found


class _Taxicab(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, effect: Tensor, bank: Tensor) -> Tensor:
        ctx.save_for_backward(effect, bank)
        return torch.cdist(effect, bank, p=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        effect, bank = ctx.saved_tensors
        each = max(BLOCK // max(effect.numel(), 1), 1)
        found = torch.zeros_like(effect)
        for some, weight in zip(
            torch.split(bank, each), torch.split(gradient, each, dim=1), strict=True
        ):
            sign = (effect[:, None] - some).sign_()  # (B, some, T)
            found += torch.einsum("bct,bc->bt", sign, weight)
        return found, None


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Return (B, S, S) Euclidean distances of cells (B, S, T) over root T, differentiable at 0.

    Cells are first centred on the mean of `b`, since distances come from differences of squares.
    """
    centre = b.mean(1, keepdim=True).detach()
    a, b = a - centre, b - centre
    square = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * a @ b.mT
    return (square.clamp_min(0) / a.shape[-1] + 1e-8).sqrt()


def _off_diagonal(square: Tensor) -> Tensor:
    """Return the mean of the entries off the diagonal (B,), or of all if there is only one."""
    n = square.shape[-1]
    if n == 1:
        return square[:, 0, 0] * 0
    inner = square.sum((1, 2)) - square.diagonal(dim1=1, dim2=2).sum(1)
    return inner / (n * (n - 1))
