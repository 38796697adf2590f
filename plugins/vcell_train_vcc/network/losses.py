"""What training minimises: expression and class, and by flags deltas, sets of cells, retrieval.

Every loss is a value per example (B,), so that cutting a batch or sharing it changes nothing; the
retrieval loss therefore compares with the fixed bank of training effects, not with the batch.
One more loss is one entry of `KINDS`. B examples, S cells of each, T gene tokens, C training
perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.errors import UserError
from vcell.train.losses import Losses
from vcell_train_vcc import TrainVcc

if TYPE_CHECKING:
    from vcell_train_vcc.network.transformer import Example

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels of the MMD, beside the mean distance
_BLOCK = 1 << 24  # numbers that the backward pass of the retrieval loss makes at a time
_SHARPNESS = 10.0  # of the retrieval loss: distances are told in a tenth of their mean


@dataclass(frozen=True)
class Units:
    """What losses are measured in.

    Attributes
    ----------
    square
        Mean square of the training effects.
    bank
        (C, T) effects of the training perturbations.
    distance
        What compares sets of cells.
    """

    square: float
    bank: Tensor
    distance: Literal["energy", "mmd"] = "energy"

    @property
    def size(self) -> float:
        """Root mean square of the training effects."""
        return math.sqrt(self.square)


class Reconstruction(nn.Module):
    """Squared error of the expression after the perturbation."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.square = units.square

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return (B,)."""
        predicted = (example["control"] + effects(out, example)).mean(1)
        return (predicted - example["expressed"]).square().mean(1) / self.square


class Classification(nn.Module):
    """Cross entropy of the class head."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        del units  # it has none

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return (B,)."""
        return F.cross_entropy(out["logits"].float(), example["row"], reduction="none")


class EffectError(nn.Module):
    """Absolute error of the effect, against that of all cells and their matched controls."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.size = units.size

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return (B,)."""
        return (effects(out, example).mean(1) - example["delta"]).abs().mean(1) / self.size


class CellDistance(nn.Module):
    """Distance of controls, moved as predicted, to the real cells of the set."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.size, self.kind = units.size, units.distance

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return (B,)."""
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


class Retrieval(nn.Module):
    """Cross entropy of picking the true effect by L1 distance: PDS made smooth."""

    bank: Tensor

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.register_buffer("bank", units.bank, persistent=False)

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return (B,)."""
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


def retrieval_bytes(config: TrainVcc, sets: int, learned: int, n_tokens: int) -> tuple[int, int]:
    """Return the bytes of the retrieval loss: its bank, and the block of its backward pass.

    Parameters
    ----------
    config
        Its weight, which may be 0.
    sets, learned, n_tokens
        Sets at once, perturbations learned from, and genes.
    """
    if not config.pds_loss:
        return 0, 0
    each = min(max(_BLOCK // max(sets * n_tokens, 1), 1), learned)
    return 4 * learned * n_tokens, 4 * sets * each * n_tokens


@dataclass(frozen=True)
class LossKind:
    """One loss that networks can be trained with.

    Attributes
    ----------
    make
        Makes the loss.
    weight
        What the settings say it counts.
    flag
        What to give a weight to, on the command line.
    of_effect
        Whether the predicted effect enters it; else only the class head does.
    """

    make: Callable[[Units], nn.Module]
    weight: Callable[[TrainVcc], float]
    flag: str
    of_effect: bool = True


KINDS = {
    "reconstruction": LossKind(Reconstruction, lambda config: config.alpha, "--alpha"),
    "classes": LossKind(Classification, lambda config: config.beta, "--beta", of_effect=False),
    "delta": LossKind(EffectError, lambda config: config.delta_loss, "--delta-loss"),
    "cells": LossKind(
        CellDistance,
        lambda config: 0.0 if config.set_loss == "none" else config.set_weight,
        "--set-loss",
    ),
    "retrieval": LossKind(Retrieval, lambda config: config.pds_loss, "--pds-loss"),
}


def weights_of(config: TrainVcc) -> dict[str, float]:
    """Return how much each loss counts; an error where none does."""
    weights = {name: kind.weight(config) for name, kind in KINDS.items()}
    if not any(weights.values()):
        flags = [kind.flag for kind in KINDS.values()]
        raise UserError(
            "all losses have weight 0: there is nothing to learn from",
            hint=f"give one of {', '.join(flags[:-1])} or {flags[-1]} a weight",
        )
    return weights


def losses_of(weights: Mapping[str, float], units: Units, *, balanced: bool = False) -> Losses:
    """Return the losses that count."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    return Losses({name: KINDS[name].make(units) for name in used}, used, balanced=balanced)


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
