"""A weighted sum of named losses, optionally balanced by their gradients at the network's trunk.

    Losses({"error": Error(), "classes": Classes()}, {"error": 1.0, "classes": 0.5})

A loss is a module of the network's outputs and the example; it returns a value per example (B,), so
that cutting a batch or sharing it changes nothing. Adding a loss means adding an entry.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_FORGET = 0.1  # weight of a new step in the moving averages of gradient sizes
_LEAST = 0.01  # a loss is not raised further below this gradient size, relative to the largest


class Losses(nn.Module):
    """The losses whose weight is not 0, and their weighted sum.

    Parameters
    ----------
    terms
        The losses, by name.
    weights
        Weight of each; losses of weight 0 are left out.
    balanced
        `weights` set the ratio in which the losses' gradients reach the network's trunk, instead
        of scaling the losses (after GradNorm, Chen et al. 2018, without its learned weights).
    """

    sizes: Tensor | None  # of the losses' gradients at the trunk, averaged over steps

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        *,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self.weights = {name: weights[name] for name in terms if weights[name] > 0}
        self.terms = nn.ModuleDict({name: terms[name] for name in self.weights})
        self.register_buffer("sizes", torch.zeros(len(self.weights)) if balanced else None)

    def forward(
        self, out: Mapping[str, Tensor], example: Mapping[str, Tensor], trunk: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean of each loss over the examples, and their weighted sum, `total`.

        If balanced, also the mean size of each loss's gradient at the trunk.
        """
        found = {name: self.terms[name](out, example) for name in self.weights}
        each = {name: values.mean() for name, values in found.items()}
        parts = torch.stack([weight * each[name] for name, weight in self.weights.items()])
        if self.sizes is not None:
            parts = parts * self.factors()
            each |= {f"gradient_{k}": gradient_size(loss, trunk) for k, loss in found.items()}
        return {"total": parts.sum(), **each}

    def factors(self) -> Tensor:
        """Return the factors on the weights; they leave the sum of the weights unchanged."""
        assert self.sizes is not None
        weights = torch.tensor([*self.weights.values()], device=self.sizes.device)
        sizes = torch.where(self.sizes.max() > 0, self.sizes, 1.0)  # 0 before the first step
        least = (sizes.max().double() * _LEAST).to(sizes)
        raised = 1 / torch.maximum(sizes, least)
        return raised * weights.sum() / (weights * raised).sum()

    def stepped(self, means: Mapping[str, float]) -> None:
        """Update the moving averages with a step's gradient sizes, means over all its examples."""
        if self.sizes is not None:
            found = torch.tensor([means[f"gradient_{name}"] for name in self.weights])
            self.sizes.lerp_(found.to(self.sizes), _FORGET)


def gradient_size(loss: Tensor, trunk: Tensor) -> Tensor:
    """Return the mean over the examples of the size of a loss's gradient at the trunk."""
    (gradient,) = torch.autograd.grad(loss.sum(), trunk, retain_graph=True)
    each: Tensor = gradient.float().reshape(len(loss), -1).norm(dim=1)
    return each.mean()
