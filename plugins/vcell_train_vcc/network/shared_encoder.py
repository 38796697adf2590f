"""Encode the control state once per step, and predict each perturbation with a small head.

The encoder sees blank ``[CLS] [PERT]`` tokens and the genes of a context's control state, and no
perturbation, so that one pass serves a whole batch. The state of a perturbation S is

    z_S = softmax(q_S W H') phi(H, 0) + sum over its targets i of beta_i (phi(h_i, m) - phi(h_i, 0))

Everything but the targets' own terms is shared. The residual of each gene comes from a small
network of h_g, z_S and the prior: O(B T d) in addition to the encoder pass.
B examples, U contexts among them, T gene tokens, C training perturbations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.nn.encoder import N_GLOBAL, Encoder, zero_head
from vcell.nn.graph_heads import GraphHeads, encoded
from vcell_train_vcc.network.transformer import (
    ClassHead,
    Embedding,
    Example,
    NetworkInputs,
)

if TYPE_CHECKING:
    from vcell.nn.attention import AttentionChoice
    from vcell.nn.patterns import Graph
    from vcell.nn.presets import Preset


class SharedEncoder(nn.Module):
    """A network that encodes the control state of a context once for all perturbations.

    Parameters
    ----------
    known
        Fixed inputs.
    contexts
        (U, T) mean expression of the controls of every context.
    preset, attention, graph
        The encoder.
    """

    unit: Tensor
    contexts: Tensor

    def __init__(
        self,
        known: NetworkInputs,
        contexts: Tensor,
        preset: Preset,
        attention: AttentionChoice | str = "sdpa",
        graph: Graph | None = None,
        heads: GraphHeads | None = None,
    ) -> None:
        super().__init__()
        self.graphs = heads
        d_model, width = preset.d_model, max(preset.d_model // 4, 16)
        self.embedding = Embedding(known, d_model, preset.dropout)
        self.blank = nn.Parameter(torch.randn(N_GLOBAL, d_model) * d_model**-0.5)
        self.encoder = Encoder(preset, attention, graph=graph)  # type: ignore[arg-type]
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.phi = nn.Sequential(nn.GELU(), nn.Linear(d_model, d_model, bias=False))
        self.beta = nn.Linear(d_model, 1)
        self.norm = nn.LayerNorm(d_model, bias=False)
        self.of_gene = nn.Linear(d_model, width)
        self.of_state = nn.Linear(2 * d_model, width, bias=False)
        self.of_prior = nn.Linear(1, width, bias=False)
        self.residual = zero_head(width)
        self.classes = ClassHead(known, d_model)
        self.register_buffer("unit", known.unit)
        self.register_buffer("contexts", contexts)

    def tokens(self, control: Tensor) -> Tensor:
        """Return the encoder's input (U, 2 + T, d) for control states (U, T)."""
        genes = self.embedding.genes(control, torch.zeros_like(control))
        blank = self.blank.to(genes.dtype).expand(len(control), -1, -1)
        return torch.cat([blank, genes], 1)

    def encode(self, control: Tensor) -> Tensor:
        """Encode control states (U, T) as (U, T, d)."""
        encoded: Tensor = self.encoder(self.tokens(control))
        return encoded[:, N_GLOBAL:]

    def encoded(self, example: Example) -> dict[str, Tensor]:
        """Return the state z_S (B, d) as the trunk, and the other inputs of the heads."""
        target, n_tokens = example["target"], example["prior"].shape[1]
        used, place = torch.unique(example["context"], return_inverse=True)
        x, graphs = self.tokens(self.contexts[used, :n_tokens]), self.graphs
        out = encoded(self.encoder, x, graphs if "expressed" in example else None)
        h = out["trunk"][:, N_GLOBAL:]
        pert = self.embedding.perturbation(example["features"], target, n_tokens)
        state = self.norm(self.read(h, place, pert, target))
        own = {"graphs": out["graphs"][place]} if "graphs" in out else {}
        return out | own | {"trunk": state, "genes": h, "place": place, "pert": pert}

    def heads(self, encoded: dict[str, Tensor], example: Example) -> dict[str, Tensor]:
        """Return the residual (B, 1, T) and the logits (B, C) of the class head."""
        state, prior = encoded["trunk"], example["prior"]
        n_tokens = prior.shape[1]
        shared = self.of_gene(encoded["genes"])[encoded["place"]]  # (B, T, width)
        own = self.of_state(torch.cat([state, encoded["pert"].to(state.dtype)], -1))[:, None]
        expected = self.of_prior((prior / self.embedding.effect)[..., None])
        inner = F.gelu(shared + own + expected)
        residual = self.residual(inner)[..., 0].float() * self.unit[:n_tokens]
        return {
            "residual": residual[:, None],
            "logits": self.classes(state, self.embedding, n_tokens),
        }

    def effect_head(self) -> tuple[nn.Module, ...]:
        """Return the modules used only for the residual."""
        return self.of_gene, self.of_state, self.of_prior, self.residual

    def gene_attention(self, example: Example) -> tuple[Tensor, Tensor]:
        """Return the mean attention of perturbations to each gene (T,), and the encoder's input."""
        target, n_tokens = example["target"], example["prior"].shape[1]
        control = self.contexts[example["context"], :n_tokens]
        pert = self.embedding.perturbation(example["features"], target, n_tokens)
        weight = self.weights(self.encode(control), torch.arange(len(control)), pert)
        return weight.mean(0), self.tokens(control)

    def weights(self, h: Tensor, place: Tensor, pert: Tensor) -> Tensor:
        """Return the attention of each perturbation to each gene (B, T)."""
        score = torch.einsum("bd,btd->bt", self.query(pert).to(h.dtype), h[place])
        return (score / math.sqrt(h.shape[-1])).softmax(-1)

    def read(self, h: Tensor, place: Tensor, pert: Tensor, target: Tensor) -> Tensor:
        """Return z_S (B, d) from encoded genes h (U, T, d)."""
        free = self.phi(h)  # phi(h, 0), shared by all perturbations
        pooled = torch.einsum("bt,btd->bd", self.weights(h, place, pert), free[place])
        seen = (target >= 0) & (target < h.shape[1])
        at = target.clamp(0, h.shape[1] - 1)
        hit = h[place[:, None], at]  # (B, M, d)
        change = self.phi(hit + self.embedding.mark.to(h.dtype)) - free[place[:, None], at]
        gate = self.beta(hit).sigmoid() * seen[..., None].to(h.dtype)
        state: Tensor = pooled + (gate * change).sum(1)
        return state
