"""The perturbation transformer: predicts the residual of the prior for each gene.

The tokens are ``[CLS] [PERT] gene_1 .. gene_T``. The token of a gene combines a learned embedding,
its expression in the control cells and the change that the prior predicts; targets carry a mark.
``[PERT]`` is computed from the features and embeddings of the target genes, never from the number
of the perturbation, so it exists for unseen perturbations too. There are two heads. The residual
head on the gene tokens is zero at first, so that training starts at the prior. The class head on
``[CLS]`` predicts which training perturbation this is, by the cosine to their embeddings.
B examples, K pseudo-cells of each, T gene tokens, F features, M targets, C training perturbations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.nn.encoder import N_GLOBAL, Encoder, zero_head
from vcell.nn.graph_heads import GraphHeads, encoded
from vcell.nn.maps import importance

if TYPE_CHECKING:
    from vcell.nn.attention import AttentionChoice
    from vcell.nn.patterns import Graph
    from vcell.nn.presets import Preset

_TEMPERATURE = 0.1  # of the cosines in the class head
Example = Mapping[str, Tensor]


@dataclass(frozen=True)
class NetworkInputs:
    """Fixed inputs of a network.

    Attributes
    ----------
    unit
        (T,) scale of each gene's residual; the network predicts in these units.
    effect
        Scale of effects, by which the prior is divided.
    features, target
        (C, F) features and (C, M) target tokens of the training perturbations, -1 for none.
    """

    unit: Tensor
    effect: float
    features: Tensor
    target: Tensor


class Embedding(nn.Module):
    """Embeddings of genes and perturbations."""

    effect: Tensor

    def __init__(self, known: NetworkInputs, d_model: int, dropout: float) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(len(known.unit), d_model) * d_model**-0.5)
        self.value = nn.Sequential(
            nn.Linear(2, d_model), nn.GELU(), nn.Linear(d_model, d_model, bias=False)
        )
        self.mark = nn.Parameter(torch.randn(d_model) * d_model**-0.5)
        self.pert = nn.Sequential(
            nn.Linear(known.features.shape[1], d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(d_model, d_model, bias=False),
        )
        self.register_buffer("effect", torch.tensor(known.effect))

    def genes(self, control: Tensor, prior: Tensor) -> Tensor:
        """Return tokens (..., T, d) from expression and predicted change, (..., T) each."""
        values = torch.stack([control, prior / self.effect], -1)
        tokens: Tensor = self.value(values) + self.code[: control.shape[-1]]
        return tokens

    def marked(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Mark the tokens (B, T, d) of the targets (B, M)."""
        hit = self.hits(target, tokens.shape[1]).clamp(max=1)
        return tokens + hit[..., None].to(tokens.dtype) * self.mark

    def perturbation(self, features: Tensor, target: Tensor, n_tokens: int) -> Tensor:
        """Return (B, d): the embedded features of a set of targets, plus the sum of their codes."""
        hit = self.hits(target, n_tokens)
        pert: Tensor = self.pert(features) + hit @ self.code[:n_tokens]
        return pert

    @staticmethod
    def hits(target: Tensor, n_tokens: int) -> Tensor:
        """Return how often each token is a target (B, T)."""
        seen = (target >= 0) & (target < n_tokens)
        hit = torch.zeros(len(target), n_tokens, device=target.device)
        return hit.scatter_add_(1, target.clamp(0, n_tokens - 1), seen.to(hit.dtype))


class ClassHead(nn.Module):
    """Predicts which training perturbation a state belongs to."""

    features: Tensor
    target: Tensor

    def __init__(self, known: NetworkInputs, d_model: int) -> None:
        super().__init__()
        self.state = nn.Linear(d_model, d_model, bias=False)
        self.answer = nn.Linear(d_model, d_model, bias=False)
        self.register_buffer("features", known.features)
        self.register_buffer("target", known.target)

    def forward(self, state: Tensor, embedding: Embedding, n_tokens: int) -> Tensor:
        """Return logits (B, C)."""
        bank = embedding.perturbation(self.features, self.target, n_tokens)
        one, all_ = F.normalize(self.state(state), dim=-1), F.normalize(self.answer(bank), dim=-1)
        return one @ all_.T / _TEMPERATURE


class PerturbationTransformer(nn.Module):
    """A transformer that encodes every perturbed state."""

    unit: Tensor

    def __init__(
        self,
        known: NetworkInputs,
        preset: Preset,
        attention: AttentionChoice | str = "sdpa",
        graph: Graph | None = None,
        heads: GraphHeads | None = None,
    ) -> None:
        super().__init__()
        d_model, self.graphs = preset.d_model, heads
        self.embedding = Embedding(known, d_model, preset.dropout)
        self.cls = nn.Parameter(torch.randn(d_model) * d_model**-0.5)
        self.encoder = Encoder(preset, attention, graph=graph)  # type: ignore[arg-type]
        self.residual = zero_head(d_model)
        self.classes = ClassHead(known, d_model)
        self.register_buffer("unit", known.unit)

    def tokens(self, example: Example) -> Tensor:
        """Return the encoder's input (B * K, 2 + T, d)."""
        control, n_tokens = example["control"], example["control"].shape[-1]
        prior = example["prior"][:, None].expand_as(control)
        genes = self.embedding.genes(control, prior).flatten(0, 1)
        copies = control.shape[1]
        target = example["target"].repeat_interleave(copies, 0)
        genes = self.embedding.marked(genes, target)
        pert = self.embedding.perturbation(example["features"], example["target"], n_tokens)
        pert = pert.repeat_interleave(copies, 0)[:, None].to(genes.dtype)
        return torch.cat([self.cls.to(genes.dtype).expand_as(pert), pert, genes], 1)

    def encoded(self, example: Example) -> dict[str, Tensor]:
        """Return the trunk (B * K, 2 + T, d); in training also the divergence from graphs."""
        graphs = self.graphs if "expressed" in example else None
        return encoded(self.encoder, self.tokens(example), graphs)

    def heads(self, encoded: dict[str, Tensor], example: Example) -> dict[str, Tensor]:
        """Return the residual (B, K, T) and the logits (B, C) of the class head."""
        n_batch, copies, n_tokens = example["control"].shape
        trunk = encoded["trunk"]
        residual = self.residual(trunk[:, N_GLOBAL:])[..., 0].float() * self.unit[:n_tokens]
        state = trunk[:, 0].reshape(n_batch, copies, -1).mean(1)
        return {
            "residual": residual.unflatten(0, (n_batch, copies)),
            "logits": self.classes(state, self.embedding, n_tokens),
        }

    def effect_head(self) -> tuple[nn.Module, ...]:
        """Return the modules used only for the residual."""
        return (self.residual,)

    def gene_attention(self, example: Example) -> tuple[Tensor, Tensor]:
        """Return attention of [CLS] and [PERT] to each gene (T,), and the encoder's input."""
        x = self.tokens(example)
        return importance(self.encoder, x)[N_GLOBAL:], x
