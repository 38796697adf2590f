"""What training minimises: expression and class, and by flags deltas, sets of cells, retrieval.

Every loss is a value per example (B,), so that cutting a batch or sharing it changes nothing; the
retrieval loss therefore compares with the fixed bank of training effects, not with the batch.
B examples, S cells of each, T gene tokens, C training perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell_train_vcc import TrainVcc
    from vcell_train_vcc.network.transformer import Example

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels of the MMD, beside the mean distance
_FORGET = 0.1  # of the averaged sizes of gradients, each step
_LEAST = 0.01  # size of a gradient, relative to the largest, below which a loss is raised no more
_BLOCK = 1 << 24  # numbers that the backward pass of the retrieval loss makes at a time
_SHARPNESS = 10.0  # of the retrieval loss: distances are told in a tenth of their mean


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much each loss counts; 0 leaves it out."""

    reconstruction: float = 1.0
    classes: float = 0.5
    delta: float = 0.0
    cells: float = 0.0
    retrieval: float = 0.0

    @classmethod
    def of(cls, config: TrainVcc) -> Weights:
        """Return the weights that the settings give; an error where all are 0."""
        weights = cls(
            reconstruction=config.alpha,
            classes=config.beta,
            delta=config.delta_loss,
            cells=0.0 if config.set_loss == "none" else config.set_weight,
            retrieval=config.pds_loss,
        )
        if not weights.used():
            raise UserError(
                "all losses have weight 0: there is nothing to learn from",
                hint="give one of --alpha, --beta, --delta-loss, --pds-loss or --set-loss a weight",
            )
        return weights

    def used(self) -> dict[str, float]:
        """Return those that count, by name."""
        return {name: weight for name, weight in vars(self).items() if weight > 0}


class Losses(nn.Module):
    """The losses, in units of the variance of effects.

    Parameters
    ----------
    weights
        How much each counts.
    unit
        Mean square of the training effects.
    bank
        (C, T) effects of the training perturbations.
    kind
        What compares sets of cells.
    balanced
        Let `weights` say in what ratio the losses' gradients reach the network's trunk, instead of
        how much each loss counts (after GradNorm, Chen et al. 2018, without its learned weights).
    """

    bank: Tensor
    sizes: Tensor | None  # of the losses' gradients at the trunk, averaged over steps

    def __init__(
        self,
        weights: Weights,
        unit: float,
        bank: Tensor,
        *,
        kind: Literal["energy", "mmd"] = "energy",
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self.weights, self.kind = weights.used(), kind
        self.unit, self.size = unit, math.sqrt(unit)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("sizes", torch.zeros(len(self.weights)) if balanced else None)

    def forward(
        self, out: Mapping[str, Tensor], example: Example, trunk: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean over the examples of each loss, and their weighted sum, `total`.

        With balanced losses also the mean size of each one's gradient at the trunk.
        """
        found = {name: getattr(self, name)(out, example) for name in self.weights}
        each = {name: values.mean() for name, values in found.items()}
        parts = torch.stack([weight * each[name] for name, weight in self.weights.items()])
        if self.sizes is not None:
            parts = parts * self.factors()
            each |= {f"gradient_{k}": gradient_size(loss, trunk) for k, loss in found.items()}
        return {"total": parts.sum(), **each}

    def factors(self) -> Tensor:
        """Return what the weights are multiplied by; their sum stays as it is."""
        assert self.sizes is not None
        weights = torch.tensor([*self.weights.values()], device=self.sizes.device)
        sizes = torch.where(self.sizes.max() > 0, self.sizes, 1.0)  # nothing is known at first
        least = (sizes.max().double() * _LEAST).to(sizes)
        raised = 1 / torch.maximum(sizes, least)
        return raised * weights.sum() / (weights * raised).sum()

    def stepped(self, means: Mapping[str, float]) -> None:
        """Learn the sizes of the gradients of a step, which are means over all its examples."""
        if self.sizes is not None:
            found = torch.tensor([means[f"gradient_{name}"] for name in self.weights])
            self.sizes.lerp_(found.to(self.sizes), _FORGET)

    def reconstruction(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Squared error of the expression after the perturbation."""
        predicted = (example["control"] + effects(out, example)).mean(1)
        return (predicted - example["expressed"]).square().mean(1) / self.unit

    def classes(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Cross entropy of the class head."""
        return F.cross_entropy(out["logits"].float(), example["row"], reduction="none")

    def delta(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Absolute error of the effect, against that of all cells and their matched controls."""
        return (effects(out, example).mean(1) - example["delta"]).abs().mean(1) / self.size

    def cells(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Distance of controls, moved as predicted, to the real cells of the set."""
        real, control = example["cells"].chunk(2, 1)
        effect = effects(out, example)
        moved = control + effect.repeat_interleave(control.shape[1] // effect.shape[1], 1)
        across, within, real_within = (
            distances(moved, real),
            distances(moved, moved),
            distances(real, real),
        )
        if self.kind == "energy":
            energy: Tensor = 2 * across.mean((1, 2)) - _off(within) - _off(real_within)
            return energy / self.size
        scale = real_within.mean((1, 2), keepdim=True).detach().square()

        def kernel(d: Tensor) -> Tensor:
            return torch.stack([torch.exp(-d.square() / (scale * w)) for w in _WIDTHS]).mean(0)

        alike = _off(kernel(within)) + _off(kernel(real_within))
        return (alike - 2 * kernel(across).mean((1, 2))) * len(_WIDTHS)

    def retrieval(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Cross entropy of picking the true effect by L1 distance: PDS made smooth."""
        effect = effects(out, example).mean(1)
        bank = self.bank[:, : effect.shape[1]]
        far: Tensor = _Taxicab.apply(effect, bank)  # type: ignore[no-untyped-call]
        logits = -_SHARPNESS * far / far.mean(1, keepdim=True).detach()
        return F.cross_entropy(logits, example["row"], reduction="none")


class _Taxicab(torch.autograd.Function):
    """L1 distances (B, C) of effects (B, T) to a fixed bank (C, T).

    `torch.cdist` keeps B x C x T numbers in its backward pass, 11.5 GB for 64 effects on 9,000
    perturbations of 5,000 genes; here they are made for a part of the bank at a time.
    """

    @staticmethod
    def forward(ctx: Any, effect: Tensor, bank: Tensor) -> Tensor:
        ctx.save_for_backward(effect, bank)
        return torch.cdist(effect, bank, p=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        effect, bank = ctx.saved_tensors
        each = max(_BLOCK // max(effect.numel(), 1), 1)
        found = torch.zeros_like(effect)
        for some, weight in zip(
            torch.split(bank, each), torch.split(gradient, each, dim=1), strict=True
        ):
            sign = (effect[:, None] - some).sign_()  # (B, some, T)
            found += torch.einsum("bct,bc->bt", sign, weight)
        return found, None


def gradient_size(loss: Tensor, trunk: Tensor) -> Tensor:
    """Return the mean over the examples of the size of a loss's gradient at the trunk."""
    (gradient,) = torch.autograd.grad(loss.sum(), trunk, retain_graph=True)
    each: Tensor = gradient.float().reshape(len(loss), -1).norm(dim=1)
    return each.mean()


def effects(out: Mapping[str, Tensor], example: Example) -> Tensor:
    """Return the predicted effects (B, K, T): the prior and what the network adds."""
    return example["prior"][:, None] + out["residual"]


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return (B, S, S) Euclidean distances of cells (B, S, T), per root of T, differentiable at 0.

    Centred on the mean of `b` first: squares of differences come as differences of squares.
    """
    centre = b.mean(1, keepdim=True).detach()
    a, b = a - centre, b - centre
    square = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * a @ b.mT
    return (square.clamp_min(0) / a.shape[-1] + 1e-8).sqrt()


def _off(square: Tensor) -> Tensor:
    """Return the mean of the entries off the diagonal (B,), or of all where there is only one."""
    n = square.shape[-1]
    if n == 1:
        return square[:, 0, 0] * 0
    inner = square.sum((1, 2)) - square.diagonal(dim1=1, dim2=2).sum(1)
    return inner / (n * (n - 1))
