"""The training losses: expression and class, and optionally effects, sets of cells, retrieval.

Every loss has a value per example (B,), so that splitting a batch changes nothing. The retrieval
loss therefore compares with the fixed bank of training effects, not with the batch. To add a loss,
add an entry to `KINDS`. B examples, S cells of each, K pseudo-cells, T gene tokens, C training
perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vcell.errors import UserError
from vcell.nn import distances
from vcell.nn.distances import energy_distance, maximum_mean_discrepancy, taxicab
from vcell.train.losses import Losses
from vcell_train_vcc import TrainVcc

if TYPE_CHECKING:
    from vcell_train_vcc.network.transformer import Example

_SHARPNESS = 10.0  # of the retrieval loss, relative to the mean distance


@dataclass(frozen=True)
class Units:
    """Scales and constants of the losses.

    Attributes
    ----------
    square
        Mean square of the training effects.
    bank
        (C, T) effects of the training perturbations.
    distance
        Distance between sets of cells.
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
        """Return the loss (B,)."""
        predicted = (example["control"] + effects(out, example)).mean(1)
        return (predicted - example["expressed"]).square().mean(1) / self.square


class Classification(nn.Module):
    """Cross entropy of the class head."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        del units  # not used

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return the loss (B,)."""
        return F.cross_entropy(out["logits"].float(), example["row"], reduction="none")


class EffectError(nn.Module):
    """Absolute error of the effect, against all cells of the perturbation and matched controls."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.size = units.size

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return the loss (B,)."""
        return (effects(out, example).mean(1) - example["delta"]).abs().mean(1) / self.size


class CellDistance(nn.Module):
    """Distance of the controls plus the predicted effect to the real cells of the set."""

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.size, self.kind = units.size, units.distance

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return the loss (B,)."""
        real, control = example["cells"].chunk(2, 1)
        effect = effects(out, example)
        moved = control + effect.repeat_interleave(control.shape[1] // effect.shape[1], 1)
        if self.kind == "mmd":
            return maximum_mean_discrepancy(moved, real)
        return energy_distance(moved, real) / self.size


class Retrieval(nn.Module):
    """Cross entropy of picking the true effect by L1 distance, a smooth form of PDS."""

    bank: Tensor

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.register_buffer("bank", units.bank, persistent=False)

    def forward(self, out: Mapping[str, Tensor], example: Example) -> Tensor:
        """Return the loss (B,)."""
        effect = effects(out, example).mean(1)
        bank = self.bank[:, : effect.shape[1]]
        far = taxicab(effect, bank)
        logits = -_SHARPNESS * far / far.mean(1, keepdim=True).detach()
        return F.cross_entropy(logits, example["row"], reduction="none")


def retrieval_bytes(config: TrainVcc, sets: int, learned: int, n_tokens: int) -> tuple[int, int]:
    """Return the bytes of the retrieval loss: its bank, and the block of its backward pass.

    `sets` are computed at once, `learned` perturbations are in the bank.
    """
    if not config.pds_loss:
        return 0, 0
    each = min(max(distances.BLOCK // max(sets * n_tokens, 1), 1), learned)
    return 4 * learned * n_tokens, 4 * sets * each * n_tokens


@dataclass(frozen=True)
class LossKind:
    """One loss of the networks.

    Attributes
    ----------
    make
        Builds the loss.
    weight
        Its weight in the settings.
    flag
        The command-line option of its weight.
    of_effect
        Whether it depends on the predicted effect, or else on the class head only.
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
    """Return the weight of each loss; an error if all are 0."""
    weights = {name: kind.weight(config) for name, kind in KINDS.items()}
    if not any(weights.values()):
        flags = [kind.flag for kind in KINDS.values()]
        raise UserError(
            "all losses have weight 0: there is nothing to learn from",
            hint=f"give one of {', '.join(flags[:-1])} or {flags[-1]} a weight",
        )
    return weights


def losses_of(weights: Mapping[str, float], units: Units, *, balanced: bool = False) -> Losses:
    """Return the losses with a weight."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    return Losses({name: KINDS[name].make(units) for name in used}, used, balanced=balanced)


def effects(out: Mapping[str, Tensor], example: Example) -> Tensor:
    """Return the predicted effects (B, K, T): the prior plus the residual of the network."""
    return example["prior"][:, None] + out["residual"]
