"""Shifts of a cell's embedding by perturbations: exact, without storing all copies.

The first layer is shared. A token of a copy differs from the cell's only by its position, so its
queries, keys and values are computed once for each (token, position) of a block of copies.
Attention to keys that all copies of the block have is computed once; each copy adds its own few.
From the second layer on every copy is computed, in batches of equal length, without padding, up to
the requested layer.

A cosine is one minus half the squared distance of unit vectors, which float32 represents to 1e-13
for close vectors, but ``1 - cosine`` only to 6e-8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcell.geneformer.perturbation import CellBounds, Copies
from vcell.nn.bert import Lengths

if TYPE_CHECKING:
    from vcell.geneformer.checkpoint import Geneformer
    from vcell.nn.bert import BertBlock

Readout = Literal["mean", "cls"]
#: Tokens of a block of copies: to fit a CPU's cache, or to fill a GPU.
BUDGET = {"cpu": 4096, "cuda": 131_072}
#: Tokens of a block that shares its first layer; several batches.
SHARED = 32_768
_FAINT = 1e-20  # a smaller softmax sum has lost its digits to a key outside the copy


@dataclass(frozen=True)
class Original:
    """An unperturbed cell after the last computed layer."""

    units: Tensor | None  # (L, d) unit vectors of its tokens; None if only <cls> is used
    cell: Tensor  # (d,) unit vector of the cell


@dataclass(frozen=True)
class First:
    """The shared part of the first layer for a block of copies.

    Attributes
    ----------
    x, qkv
        ``(U, d)`` input and ``(U, 3, heads, width)`` projections of each distinct row.
    entry
        ``(C, L)`` index of the row of each entry of each copy.
    mixed
        ``(C, L, d)`` output of attention; None if each batch computes its own.
    """

    x: Tensor
    qkv: Tensor
    entry: Tensor
    mixed: Tensor | None


@dataclass(frozen=True)
class CellShifts:
    """Measurements of the copies of one cell, one entry per event.

    Attributes
    ----------
    distance
        1 - cosine to the original: of the cell's embedding, or the mean over its unperturbed genes.
    to_state
        For each state, the cosine to it minus the original's.
    """

    distance: NDArray[np.float64]
    to_state: dict[str, NDArray[np.float64]]


class ShiftEngine:
    """Computes shifts of cells under a model.

    Parameters
    ----------
    model
        A loaded Geneformer, on the device to compute on.
    n_layers
        Number of layers to compute.
    readout
        ``mean`` over genes, or ``cls``.
    states
        Embedding of each state, to measure shifts towards.
    budget
        Number of tokens of a block of copies.
    shared
        Whether to share the first layer; False for comparison.
    """

    def __init__(
        self,
        model: Geneformer,
        n_layers: int,
        readout: Readout,
        states: Mapping[str, NDArray[np.float64]] | None = None,
        *,
        budget: int | None = None,
        shared: bool = True,
    ) -> None:
        self.model, self.bert = model, model.bert
        self.device = self.bert.tokens.weight.device
        self.n_layers, self.readout, self.shared = n_layers, readout, shared
        self.budget = budget or BUDGET[self.device.type]
        framed = model.vocabulary.cls is not None
        self.frame = CellBounds(int(framed), int(framed), model.shape.n_positions)
        self.names = list(states or {})
        vectors = [np.asarray(v, np.float64) for v in (states or {}).values()]
        units = [v / np.linalg.norm(v) for v in vectors]
        stacked = np.stack(units) if units else np.zeros((0, model.shape.d_model))
        self.states = torch.from_numpy(stacked).to(self.device)

    @torch.inference_mode()
    def embed(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the embedding of one cell, not normalised."""
        given = torch.from_numpy(tokens.astype(np.int64)).to(self.device)
        hidden = self.bert.encode(given, Lengths((len(given),)), self.n_layers)
        out: NDArray[np.float32] = self.pooled(hidden[None])[0].cpu().numpy()
        return out

    def original(self, tokens: Tensor) -> Original:
        """Encode an unperturbed cell."""
        hidden = self.bert.encode(tokens, Lengths((len(tokens),)), self.n_layers)[None]
        cell = F.normalize(self.pooled(hidden).double(), dim=1)[0]
        return Original(F.normalize(hidden[0], dim=1) if self.readout == "mean" else None, cell)

    @torch.inference_mode()
    def shifts(self, tokens: NDArray[np.int32], length: int, copies: Copies) -> CellShifts:
        """Measure every copy of a cell.

        Parameters
        ----------
        tokens
            The cell's tokens, then those of the genes that it lacks.
        length
            Number of the cell's tokens.
        """
        given = torch.from_numpy(tokens.astype(np.int64)).to(self.device)
        whole = self._cut(given[:length], copies.overflow)
        original = self.original(whole)
        parts = list(self._measured(given, original, copies))
        distances = [distance for distance, _ in parts]
        moved = torch.cat([shift for _, shift in parts]).cpu().numpy()
        return CellShifts(
            torch.cat(distances).cpu().numpy(),
            {name: moved[:, i].copy() for i, name in enumerate(self.names)},
        )

    def _measured(
        self, tokens: Tensor, original: Original, copies: Copies
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield distances and shifts towards states, batch by batch."""
        length = max(copies.length, 1)
        batch = max(1, self.budget // length)
        block = batch * max(1, SHARED // (batch * length))
        for start in range(0, len(copies), block):
            chosen = slice(start, min(start + block, len(copies)))
            order = copies.order(chosen, self.device)
            first = self._first(tokens, order)
            for at in range(0, len(order), batch):
                some = slice(at, at + batch)
                events = slice(start + at, min(start + at + batch, chosen.stop))
                hidden = self._rest(first, tokens, order, some)
                cells = F.normalize(self.pooled(hidden).double(), dim=1)
                distance = self._distance(hidden, cells, original, order[some], copies, events)
                yield distance, (cells - original.cell) @ self.states.T

    def _cut(self, tokens: Tensor, overflow: int) -> Tensor:
        """Remove the genes that were dropped from the copies, so that both have the same genes."""
        if not overflow:
            return tokens
        genes = tokens[: len(tokens) - self.frame.last - overflow]
        return torch.cat([genes, tokens[len(tokens) - self.frame.last :]])

    def pooled(self, hidden: Tensor) -> Tensor:
        """Return the embedding of cells, (C, d), from their tokens, (C, L, d)."""
        if self.readout == "cls":
            return hidden[:, 0]
        return hidden[:, self.frame.first : hidden.shape[1] - self.frame.last].mean(1)

    def _distance(
        self,
        hidden: Tensor,
        cells: Tensor,
        original: Original,
        order: Tensor,
        copies: Copies,
        events: slice,
    ) -> Tensor:
        """Return 1 - cosine to the original for each copy."""
        if original.units is None:
            return 0.5 * (cells - original.cell).square().sum(1)
        first, last = self.frame.first, order.shape[1] - self.frame.last
        sources = order[:, first:last]
        counted = torch.ones_like(sources, dtype=torch.bool)
        if copies.kind in ("move", "insert"):
            at = torch.from_numpy(copies.at[events]).to(self.device)
            base = torch.from_numpy(copies.base).to(self.device)
            moved = at if copies.kind == "insert" else base[at]
            counted &= sources != moved[:, None]
        for source in copies.touched:
            counted &= sources != source
        known = sources < len(original.units) + copies.overflow
        counted &= known
        # dropped entries have no counterpart; the shortened cell has the same numbering
        there = original.units[sources.clamp(max=len(original.units) - 1)]
        half = 0.5 * (F.normalize(hidden[:, first:last], dim=2) - there).square().sum(2)
        n = counted.sum(1).clamp(min=1)
        return torch.where(counted, half, 0).double().sum(1) / n

    # -- layers ----------------------------------------------------------------------------------

    def _first(self, tokens: Tensor, order: Tensor) -> First | None:
        """Compute the shared part of the first layer for a block of copies."""
        if self.n_layers == 0 or (self.readout == "cls" and self.n_layers == 1):
            return None
        places = self.frame.longest + 1
        keys = order * places + torch.arange(order.shape[1], device=self.device)
        rows, entry = torch.unique(keys, return_inverse=True)  # entry: (C, L) numbers of rows
        source = torch.div(rows, places, rounding_mode="floor")
        x = self.bert.embed(tokens[source], rows - source * places)
        qkv = self.bert.heads(self.bert.block(0), x)
        mixed = self._shared_attention(qkv, entry) if self.shared and len(order) > 1 else None
        return First(x, qkv, entry, mixed)

    def _rest(self, first: First | None, tokens: Tensor, order: Tensor, some: slice) -> Tensor:
        """Return hidden states of a batch of copies, (C, L, d); for `cls`, of <cls> alone."""
        bert, only_cls = self.bert, self.readout == "cls"
        n_copies, length = order[some].shape
        lengths = Lengths((length,) * n_copies)
        if first is None:
            place = torch.arange(length, device=self.device).expand(n_copies, -1)
            x = bert.embed(tokens[order[some]], place)
            return self._cls_layer(0, x) if self.n_layers else x
        flat = first.entry[some].reshape(-1)
        if first.mixed is None:
            mixed = bert.mix(first.qkv[flat], lengths)
        else:
            mixed = first.mixed[some].reshape(len(flat), -1)
        last = self.n_layers - 1 if only_cls else self.n_layers
        x = bert.layers(first.x[flat], lengths, 0, last, mixed)
        x = x.view(n_copies, length, -1)
        return self._cls_layer(last, x) if only_cls else x

    def _shared_attention(self, qkv: Tensor, entry: Tensor) -> Tensor | None:
        """Attend within copies, (C, L, d), or return None if sharing does not pay or is not exact.

        Parameters
        ----------
        qkv
            (U, 3, heads, width) of the distinct rows of a block of copies.
        entry
            (C, L) index of the row of each entry of each copy.
        """
        n_copies, length = entry.shape
        n_rows, _, n_heads, width = qkv.shape
        member = torch.zeros(n_copies, n_rows, dtype=torch.bool, device=entry.device)
        member.scatter_(1, entry, value=True)
        common = member.all(0)
        own = torch.nonzero(~common)[:, 0]
        if len(own) * 3 > length:
            return None
        common = torch.nonzero(common)[:, 0]
        mask = member[:, own].to(torch.float32)  # (C, O)
        out = torch.empty(n_copies, length, n_heads, width, device=qkv.device)
        for head in range(n_heads):
            q, k, v = (part[:, head].float() for part in qkv.unbind(1))
            scores = (q @ k.T) * width**-0.5
            weights = (scores - scores.amax(1, keepdim=True)).exp_()
            base = weights[:, common]
            sums, values = base.sum(1), base @ v[common]
            mine = weights[:, own]  # (U, O)
            with_one = torch.cat([v[own], torch.ones(len(own), 1, device=v.device)], 1)
            chosen = mask[:, :, None] * with_one  # (C, O, width + 1): zero where not the copy's
            added = torch.bmm(mine[entry], chosen)  # (C, L, width + 1)
            total = sums[entry] + added[..., -1]
            if float(total.min()) < _FAINT:
                return None
            out[:, :, head] = (values[entry] + added[..., :-1]) / total[..., None]
        return self.bert.precision(out.view(n_copies, length, n_heads * width))

    def _cls_layer(self, number: int, x: Tensor) -> Tensor:
        """Run a layer for <cls> alone, (C, 1, d): keys and values of all, one query."""
        block: BertBlock = self.bert.block(number)
        n_copies, length, d = x.shape
        heads, width = block.n_heads, d // block.n_heads
        qkv = self.bert.heads(block, x.reshape(-1, d)).view(n_copies, length, 3, heads, width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        mixed = mixed.transpose(1, 2).reshape(n_copies, d)
        return self.bert.finish(block, x[:, 0], mixed)[:, None]
