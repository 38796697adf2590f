"""Encode the unperturbed cell once, and derive any number of perturbations from it.

`WildType` runs the encoder over the genes of one cell, once per step, for any number of
perturbations. A small head computes the perturbations:

    z_S = sum_i beta_i(S) phi(h_i, m_i),   beta(S) = softmax_i(q_S . k_i / sqrt(d)),   q_S = pool(S)

over all genes i; m_i says whether a gene is present, absent, added or overexpressed. All but the
genes of S are present, and phi(h_i, present) is the same for every S. With Phi0 of its rows

    z_S = softmax(q_S K^T) Phi0 + sum_{i in S} beta_i (phi(h_i, m_i) - phi(h_i, present))

is the same, at O(B N d) instead of O(B N d^2). The first term is blocked attention, whose
log-sum-exp gives beta_i of the genes of S; neither (B, N) weights nor masks are stored. An added
gene is not part of the wild type: it enters the softmax of its own samples only, and
`WildType.append` gives it a state that attends to the wild type without changing it. B sets, S
genes of a set at most, N genes of the wild type, M new ones, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell.nn.graph_loss import GraphLoss, Regularised, attend_apart
from vcell.nn.lse import attention, attention_and_lse

if TYPE_CHECKING:
    from vcell.nn.encoder import Encoder

NONE = -1  # not a gene: pads sets smaller than the largest


class GeneState(IntEnum):
    """The state of a gene under a perturbation."""

    PRESENT = 0  # as in the wild type
    ABSENT = 1  # deleted or knocked down
    ADDED = 2  # not in the wild type
    OVEREXPRESSED = 3


@dataclass(frozen=True)
class Encoded:
    """An encoded wild type.

    Attributes
    ----------
    states
        (N, d) states of its genes.
    keys, values
        (H, N + 1, D) of every layer, [CLS] first, for new genes to attend to.
    graphs
        The graphs' loss, if there is one.
    """

    states: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    graphs: Regularised | None = None


class WildType(nn.Module):
    """The unperturbed cell: an encoder over [CLS] and its genes.

    Parameters
    ----------
    encoder
        The encoder, whose blocks are used.
    graphs
        Regularises heads of one layer.
    layer
        The layer with the regularised heads.
    """

    def __init__(self, encoder: Encoder, graphs: GraphLoss | None = None, layer: int = 0) -> None:
        super().__init__()
        self.encoder, self.graphs, self.layer = encoder, graphs, layer
        d_model = encoder.preset.d_model
        self.cls = nn.Parameter(torch.randn(d_model) * d_model**-0.5)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Encoded:
        """Encode (N, d) tokens of genes; `generator` draws rows if only a share is regularised."""
        x = torch.cat([self.cls.to(x.dtype)[None], x])[None]
        keys, values, found = [], [], None
        for number, block in enumerate(self.encoder.layers):
            q, k, v = block.attention.heads(block.norm_attention(x))
            keys.append(k[0])
            values.append(v[0])
            if self.graphs is not None and number == self.layer:
                genes = slice(1, x.shape[1])
                mixed, lse = attend_apart(q, k, v, genes)
                found = self.graphs(q[:, :, 1:], k[:, :, 1:], lse[:, :, 1:], generator=generator)
            else:
                mixed = attention(q, k, v)
            x = x + block.dropout(block.attention.out(mixed.transpose(1, 2).reshape(x.shape)))
            x = x + block.dropout(block.down(F.gelu(block.up(block.norm_mlp(x)))))
        return Encoded(self.encoder.norm(x)[0, 1:], tuple(keys), tuple(values), found)

    def append(self, encoded: Encoded, x: Tensor) -> Tensor:
        """Return states (M, d) of new genes from their tokens; nothing is encoded again.

        Each attends to the wild type and itself, and nothing attends to it, so the wild type is
        unchanged.
        """
        for block, k, v in zip(self.encoder.layers, encoded.keys, encoded.values, strict=True):
            q1, k1, v1 = block.attention.heads(block.norm_attention(x)[None])
            mixed, lse = attention_and_lse(q1, k[None], v[None])
            own = (q1 * k1).sum(-1).to(lse.dtype) * q1.shape[-1] ** -0.5
            whole = torch.logaddexp(lse, own)
            both = mixed.to(lse.dtype) * (lse - whole).exp()[..., None]
            both = (both + v1.to(lse.dtype) * (own - whole).exp()[..., None]).to(x.dtype)
            x = x + block.dropout(block.attention.out(both[0].transpose(0, 1).reshape(x.shape)))
            x = x + block.dropout(block.down(F.gelu(block.up(block.norm_mlp(x)))))
        out: Tensor = self.encoder.norm(x)
        return out


class PerturbationHead(nn.Module):
    """Compute sets of perturbed genes from an encoded wild type, exactly, in O(B N d).

    Parameters
    ----------
    d_model
        Width of the states and of the output.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(len(GeneState), d_model)
        self.pool = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU())
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.phi_in = nn.Linear(d_model, d_model)
        self.phi_out = nn.Linear(d_model, d_model, bias=False)
        nn.init.normal_(self.kind.weight, std=d_model**-0.5)

    def phi(self, states: Tensor, kinds: Tensor) -> Tensor:
        """Return a gene's value (..., d), from its state and its `GeneState`."""
        found: Tensor = self.phi_out(F.gelu(self.phi_in(states) + self.kind(kinds)))
        return found

    def pooled_query(self, states: Tensor, kinds: Tensor, there: Tensor) -> Tensor:
        """Return the query (B, d) of each set: pooled over its genes, independent of order."""
        each = self.pool(states + self.kind(kinds)) * there[..., None]
        found: Tensor = self.query(each.sum(1) / there.sum(1, keepdim=True).clamp_min(1))
        return found

    def forward(
        self, states: Tensor, genes: Tensor, kinds: Tensor, new: Tensor | None = None
    ) -> Tensor:
        """Return z (B, d).

        Parameters
        ----------
        states
            (N, d) of the wild type.
        genes
            (B, S) numbers of the genes of each set, padded by `NONE`; N + m is the m-th new gene.
            No gene twice in a set.
        kinds
            (B, S) `GeneState`s; new genes are ``ADDED``.
        new
            (M, d) states of new genes, from `WildType.append`.
        """
        n = len(states)
        there = genes >= 0
        pool = states if new is None else torch.cat([states, new])
        own = F.embedding(genes.clamp_min(0), pool)  # (B, S, d)
        query = self.pooled_query(own, kinds, there)
        present = self.phi(states, torch.zeros(1, dtype=torch.long, device=genes.device))
        keys = self.key(pool)
        mixed, lse = (
            x[0, 0]
            for x in attention_and_lse(query[None, None], keys[None, None, :n], present[None, None])
        )
        scale = query.shape[-1] ** -0.5
        with torch.autocast(states.device.type, enabled=False):
            exact = lse.dtype
            at = F.embedding(genes.clamp_min(0), keys.to(exact))
            score = torch.einsum("bd,bsd->bs", query.to(exact), at) * scale
        added = there & (genes >= n)
        whole = torch.logaddexp(
            lse, torch.logsumexp(torch.where(added, score, -torch.inf), 1)
        ) if new is not None else lse  # fmt: skip
        beta = torch.where(there, (score - whole[:, None]).exp(), 0.0)
        before = self.phi(own, torch.zeros_like(kinds)) * (~added)[..., None]
        change = (self.phi(own, kinds) - before).to(beta.dtype)
        out = mixed.to(beta.dtype) * (lse - whole).exp()[:, None]
        out = out + torch.einsum("bs,bsd->bd", beta, change)
        return out.to(states.dtype)


class SetPooling(nn.Module):
    """Hyper-SAGNN: relations of the genes of a set, by attention of (B, S, S).

    Each gene has a static state and one that depends on the others in the set; the set's output is
    their difference (Zhang, Zou and Ma 2020). There is one attention per set, instead of one over
    all sets of a batch with a mask.
    """

    def __init__(self, d_model: int, n_heads: int = 4) -> None:
        super().__init__()
        if d_model % n_heads:
            message = f"width {d_model} is not a multiple of {n_heads} heads"
            raise ValueError(message)
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.own = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU())
        self.out = nn.Linear(d_model, d_model)

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """Return (B, d) from the states (B, S, d) of genes; `there` (B, S) is False for padding."""
        n, size, width = states.shape
        q, k, v = self.qkv(states).view(n, size, 3, self.n_heads, -1).unbind(2)
        score = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        itself = torch.eye(size, dtype=torch.bool, device=states.device)
        hidden = itself | ~there[:, None, None, :]  # a gene does not attend to itself
        weight = torch.softmax(score.masked_fill(hidden, torch.finfo(score.dtype).min), -1)
        weight = weight.masked_fill(hidden, 0.0)  # a gene alone in its set attends to nothing
        others = torch.einsum("bhij,bjhd->bihd", weight, v).reshape(n, size, width)
        apart = (self.out(others) - self.own(states)).square() * there[..., None]
        found: Tensor = apart.sum(1) / there.sum(1, keepdim=True).clamp_min(1)
        return found
