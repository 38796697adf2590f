"""The network: from cells to the terms of the objective.

The encoder ``q(z|x)`` does not depend on the component, so that a cell is reconstructed once, for
any number of components. There are no batch statistics: LayerNorm throughout.
B cells, G genes, K components, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vcell.gmvae.mixture import Mixture
from vcell.nn.compressed import CompressedLinear, CompressedRows
from vcell.nn.likelihood_types import Kind
from vcell.nn.likelihoods import CountDecoder


@dataclass(frozen=True, kw_only=True)
class GmvaeShape:
    """The sizes of a network.

    Attributes
    ----------
    genes, components, batches
        Numbers of genes, components, and batches (0: unknown).
    labelled
        Whether the components are labels.
    """

    genes: int
    components: int
    batches: int = 0
    labelled: bool = False
    latent: int = 32
    encoder: tuple[int, ...] = (256, 128)
    decoder: tuple[int, ...] = (128,)
    likelihood: Kind = "nb"
    dropout: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> GmvaeShape:
        """Make a shape from `plain`."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()
        }
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the terms of the objective.

    Attributes
    ----------
    kl, warmup
        Weight of the distance to the mixture, reached after `warmup` steps.
    free_bits
        Nats of that distance without cost.
    labels
        Weight of the cross entropy of a shown label.
    shown
        Share of the training cells whose label is shown: the cross entropy is divided by it, so
        that its weight does not depend on their number.
    begin
        Steps over which the cross entropy of the component that a cell begins in falls to 0.
    """

    kl: float = 1.0
    warmup: int = 0
    free_bits: float = 0.0
    labels: float = 50.0
    shown: float = 1.0
    begin: int = 0


class NormActivation(nn.Module):
    """LayerNorm, ReLU and dropout, after each linear layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return (B, width); `kept`, of that shape, is the mask of dropout."""
        x = functional.relu(self.norm(x))
        return x if kept is None else x * kept / (1 - self.dropout)


def _layers(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), NormActivation(after, dropout)]
    return nn.Sequential(*layers)


class Gmvae(nn.Module):
    """A Gaussian-mixture variational autoencoder of counts."""

    taken: Tensor

    def __init__(self, shape: GmvaeShape, weights: Weights | None = None) -> None:
        super().__init__()
        self.shape, self.weights = shape, weights or Weights()
        self.first = CompressedLinear(shape.genes, shape.encoder[0])
        self.second = NormActivation(shape.encoder[0], shape.dropout)
        self.encoder = _layers(shape.encoder, shape.dropout)
        self.mean = nn.Linear(shape.encoder[-1], shape.latent)
        self.log_variance = nn.Linear(shape.encoder[-1], shape.latent)
        self.mixture = Mixture(shape.components, shape.latent, labelled=shape.labelled)
        self.decoder = _layers((shape.latent + shape.batches, *shape.decoder), 0.0)
        self.counts = CountDecoder(shape.decoder[-1], shape.genes, shape.likelihood)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))  # steps, for warm-up

    def encode(self, rows: CompressedRows) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of ``q(z|x)``, each (B, D), in float32."""
        # drawn by the stream of batches, like the noise, so the same for any number of processes
        kept = self._kept(rows)
        hidden = self.second(self.first(rows), kept[0])
        for i in range(0, len(self.encoder), 2):
            hidden = self.encoder[i + 1](self.encoder[i](hidden), kept[1 + i // 2])
        return self.mean(hidden).float(), self.log_variance(hidden).float().clamp(-12, 6)

    def _kept(self, rows: CompressedRows) -> Sequence[Tensor | None]:
        widths = list(self.shape.encoder)
        if not self.training or "kept" not in rows.more:
            return [None] * len(widths)
        return torch.split(rows.more["kept"], widths, 1)

    def decode(self, z: Tensor, rows: CompressedRows) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the counts given z, and the loss of each cell."""
        if self.shape.batches:
            # an unseen batch, -1, is encoded as zeros
            known = rows.more["batch"][:, None] == torch.arange(self.shape.batches, device=z.device)
            z = torch.cat([z, known.to(z.dtype)], 1)
        found: tuple[Tensor, Tensor] = self.counts(self.decoder(z), rows)
        return found

    def forward(self, rows: CompressedRows) -> dict[str, Tensor]:
        """Return the objective, ``total``, and its terms: means over the cells."""
        mean, log_variance = self.encode(rows)
        z = mean
        if "noise" in rows.more:
            z = mean + (0.5 * log_variance).exp() * rows.more["noise"]
        loss, _ = self.decode(z, rows)
        with torch.autocast(mean.device.type, enabled=False):
            return self._objective(loss.float(), self.mixture(mean, log_variance), rows)

    def _objective(self, loss: Tensor, joint: Tensor, rows: CompressedRows) -> dict[str, Tensor]:
        weights = self.weights
        whole = torch.logsumexp(joint, 1)
        kl, entropy = -whole, torch.zeros_like(whole)
        if self.shape.labelled:
            label = rows.more["label"].long()
            shown = label >= 0
            own = joint.gather(1, label.clamp_min(0)[:, None])[:, 0]
            kl = torch.where(shown, -own, kl)
            entropy = torch.where(shown, whole - own, entropy)
        far = kl.clamp_min(weights.free_bits) if weights.free_bits else kl
        beta = weights.kl * ((self.taken + 1) / max(weights.warmup, 1)).clamp(max=1.0)
        pull: float | Tensor = weights.labels / weights.shown
        if not self.shape.labelled and "begin" in rows.more:
            begin = rows.more["begin"].long()
            own = joint.gather(1, begin.clamp_min(0)[:, None])[:, 0]
            entropy = torch.where(begin >= 0, whole - own, entropy)
            pull = weights.labels * (1 - self.taken / max(weights.begin, 1)).clamp(min=0.0)
        total = loss + beta * far.mean() + pull * entropy.mean()
        return {"total": total, "counts": loss, "kl": kl.mean(), "labels": entropy.mean()}
