"""Regularise attention heads by gene graphs, without a matrix of attention weights.

The loss of a head whose rows should resemble the rows of a graph is their divergence. With A the
graph's rows scaled to sum 1, and attention restricted to the genes,

    KL(A_i || attention_i) = sum_j A_ij log A_ij  -  q_i . (A k)_i / sqrt(D)  +  lse_i

so that a sparse product and each row's log-sum-exp are enough: the time grows with the edges. The
log-sum-exp covers the keys of genes only. Other tokens, [CLS] and genes outside the graph, are
attended to separately and merged by `logaddexp` (`attend_apart`). Subtracting them from the total
log-sum-exp would lose all digits where [CLS] gets nearly all of the attention.

A node without edges has no such row; it is left out and counted. Each graph's divergence is a mean
over its rows, and its weight is applied once.
N genes, E edges, K graphs, B samples, H heads, T tokens, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcell.errors import UserError
from vcell.nn.lse import attention_and_lse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

MOST = 0.5  # warn if a graph's share of the loss or of its gradient is larger


@dataclass(frozen=True, eq=False)
class RowGraph:
    """A graph whose rows are scaled to sum 1, as a matrix to multiply by.

    Attributes
    ----------
    pairs
        (2, E) row and column of each weight, sorted by row.
    weights
        (E,) float64, positive; each row sums to 1.
    n_nodes
        N.
    rows
        (N,) whether a row has any edge: rows without are not regularised.
    entropy
        (N,) sum of A log A of each row, float64.
    """

    pairs: Tensor
    weights: Tensor
    n_nodes: int
    rows: Tensor
    entropy: Tensor
    _ready: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        indptr: ArrayLike,
        indices: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        valid: NDArray[np.bool_] | None = None,
    ) -> RowGraph:
        """Make a graph from CSR arrays, without edges of weight 0.

        Parameters
        ----------
        indptr, indices
            CSR of N rows.
        weights
            (E,), non-negative; by default all edges of a row have equal weight.
        valid
            (N,), False for genes to leave out, with their rows and edges to them.

        Raises
        ------
        UserError
            If weights are negative or not finite.
        """
        start = np.asarray(indptr, np.int64)
        column = np.asarray(indices, np.int64)
        n_nodes = len(start) - 1
        row = np.repeat(np.arange(n_nodes), np.diff(start))
        weight = np.ones(len(column)) if weights is None else np.asarray(weights, np.float64)
        if not np.isfinite(weight).all() or (weight < 0).any():
            worst = int(np.flatnonzero(~(weight >= 0) | ~np.isfinite(weight))[0])
            raise UserError(
                f"the edge {row[worst]} to {column[worst]} weighs {weight[worst]}; "
                "attention can only follow weights that are finite and not negative"
            )
        kept = weight > 0
        if valid is not None:
            kept &= valid[row] & valid[column]
        row, column, weight = row[kept], column[kept], weight[kept]
        order = np.lexsort((column, row))
        row, column, weight = row[order], column[order], weight[order]
        total = np.bincount(row, weight, minlength=n_nodes)
        share = weight / total[row]
        return cls(
            torch.from_numpy(np.stack([row, column])),
            torch.from_numpy(share),
            n_nodes,
            torch.from_numpy(total > 0),
            torch.from_numpy(np.bincount(row, share * np.log(share), minlength=n_nodes)),
        )

    def first(self, n: int) -> RowGraph:
        """Return the graph of the first nodes, and of the edges among them."""
        return RowGraph(self.pairs, self.weights, n, self.rows[:n], self.entropy[:n])

    @property
    def n_left_out(self) -> int:
        """Number of nodes without edges."""
        return self.n_nodes - int(self.rows.sum())

    def mean(self, x: Tensor) -> Tensor:
        """Return A x: each node's weighted mean of its neighbours, 0 if it has none.

        `x` is (N, D) or (B, N, D). Differentiable in `x`. Half precision is computed in float32.
        """
        wide = x if x.element_size() >= 4 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            flat = wide.movedim(-2, 0).reshape(self.n_nodes, -1)
            found: Tensor = torch.sparse.mm(self._matrix(wide), flat)
        return found.view(self.n_nodes, *wide.shape[:-2], -1).movedim(0, -2)

    def at(self, name: str, x: Tensor) -> Tensor:
        """Return ``rows`` or ``entropy`` where `x` is, copied to its device once."""
        key = (name, x.device, x.dtype if name == "entropy" else None)
        if key not in self._ready:
            found: Tensor = getattr(self, name)
            self._ready[key] = found.to(x.device, x.dtype if name == "entropy" else None)
        return self._ready[key]

    def _matrix(self, x: Tensor) -> Tensor:
        key = ("matrix", x.device, x.dtype)
        if key not in self._ready:
            # sorted, without duplicates: mark it so, or each product would sort it again
            self._ready[key] = torch.sparse_coo_tensor(
                self.pairs.to(x.device),
                self.weights.to(x.device, x.dtype),
                (self.n_nodes, self.n_nodes),
                is_coalesced=True,
                check_invariants=True,
            )
        return self._ready[key]


def attend_apart(
    q: Tensor, k: Tensor, v: Tensor, genes: slice, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to all tokens; also return the log-sum-exp over the genes' tokens only.

    Parameters
    ----------
    q
        (B, H, T, D), of any tokens.
    k, v
        (B, H, S, D)
    genes
        The tokens, of S, that are genes of the graphs. The others are few: [CLS], added genes.
    valid
        (B, S), False at keys that nobody attends to.

    Returns
    -------
    tuple of Tensor
        (B, H, T, D) and (B, H, T).
    """
    start, stop, _ = genes.indices(k.shape[2])
    there = None if valid is None else valid[:, start:stop]
    out, lse = attention_and_lse(q, k[:, :, start:stop], v[:, :, start:stop], there)
    if stop - start == k.shape[2]:
        return out, lse
    others = [slice(0, start), slice(stop, k.shape[2])]
    few_k, few_v = (torch.cat([x[:, :, one] for one in others], 2) for x in (k, v))
    exact = lse.dtype
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(exact) * q.shape[-1] ** -0.5) @ few_k.to(exact).transpose(-2, -1)
        if valid is not None:
            seen = torch.cat([valid[:, one] for one in others], 1)
            scores = scores.masked_fill(~seen[:, None, None, :], -torch.inf)
        whole = torch.logaddexp(lse, torch.logsumexp(scores, -1))
        few = (scores - whole[..., None]).exp() @ few_v.to(exact)
        merged = out.to(exact) * (lse - whole).exp()[..., None] + few
    return merged.to(out.dtype), lse


def row_divergence(q: Tensor, k: Tensor, lse: Tensor, graph: RowGraph) -> Tensor:
    """Return (..., N): KL from a graph's rows to a head's attention over genes; 0 without edges.

    Parameters
    ----------
    q, k
        (..., N, D) queries and keys of the genes, of one head.
    lse
        (..., N) from `attend_apart`.
    graph
        The graph of the same N genes.
    """
    exact = lse.dtype
    with torch.autocast(q.device.type, enabled=False):
        near = graph.mean(k.to(exact))
        cross = (q.to(exact) * near).sum(-1) * q.shape[-1] ** -0.5
        found = graph.at("entropy", lse) - cross + lse
    return torch.where(graph.at("rows", lse), found, torch.zeros_like(found))


@dataclass(frozen=True)
class Regularised:
    """The graphs' loss, and its parts.

    Attributes
    ----------
    total
        The term added to the loss: weights times divergences.
    each
        (K,) weighted part of every graph, in the order of `GraphLoss.names`.
    divergence
        (K,) mean divergence of a row, in nats, unweighted.
    """

    total: Tensor
    each: Tensor
    divergence: Tensor


class GraphLoss:
    """The loss of chosen heads of one layer, each with its graph.

    Parameters
    ----------
    graphs
        Graphs by name, all of the same N genes.
    weight
        Weight of every graph's mean divergence, or a weight for each graph by name.
    heads
        The head of each graph (default: the first graph's is head 0, and so on).
    share
        Share of the rows to use, drawn in each call; the expected mean is the same. This hardly
        saves time: a product with all rows dominates the cost.
    """

    def __init__(
        self,
        graphs: Mapping[str, RowGraph],
        weight: float | Mapping[str, float],
        *,
        heads: Sequence[int] | None = None,
        share: float = 1.0,
    ) -> None:
        self.names = tuple(graphs)
        self.graphs = tuple(graphs.values())
        self.heads = tuple(range(len(graphs)) if heads is None else heads)
        if len(self.heads) != len(self.graphs) or len(set(self.heads)) != len(self.heads):
            message = "each graph needs a head of its own"
            raise ValueError(message)
        if not 0 < share <= 1:
            message = f"the share of rows is above 0 and at most 1, not {share}"
            raise ValueError(message)
        self.weights = tuple(
            float(weight[name]) if not isinstance(weight, float | int) else float(weight)
            for name in self.names
        )
        self.share = share

    @property
    def left_out(self) -> dict[str, int]:
        """Number of genes without edges in each graph: their rows are not regularised."""
        return {name: g.n_left_out for name, g in zip(self.names, self.graphs, strict=True)}

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Regularised:
        """Return the loss of a layer: the weighted mean over samples of `each`.

        Parameters as in `each`.
        """
        divergence = self.each(q, k, lse, valid=valid, generator=generator).mean(0)
        weights = torch.tensor(self.weights, dtype=divergence.dtype, device=divergence.device)
        weighted = divergence * weights
        return Regularised(weighted.sum(), weighted, divergence.detach())

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def each(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return (B, K): the mean divergence of a row, in nats, of each sample and graph.

        Parameters
        ----------
        q, k
            (B, H, N, D) queries and keys of the genes only.
        lse
            (B, H, N) from `attend_apart`.
        valid
            (N,), False for further rows that are not to be regularised, besides those without
            edges. For genes that are not attended to, use `valid` of `RowGraph.of`.
        generator
            Draws the rows if `share` is below 1; must be the same on all processes of a run.
        """
        taken = valid
        if self.share < 1:
            drawn = torch.rand(q.shape[2], generator=generator) < self.share
            taken = drawn.to(q.device) if valid is None else drawn.to(q.device) & valid
        found = []
        for head, graph in zip(self.heads, self.graphs, strict=True):
            rows = graph.at("rows", lse) if taken is None else graph.at("rows", lse) & taken
            each = row_divergence(q[:, head], k[:, head], lse[:, head], graph)
            count = rows.sum().clamp_min(1)
            found.append(torch.where(rows, each, torch.zeros_like(each)).sum(1) / count)
        return torch.stack(found, 1)


@dataclass(frozen=True)
class Share:
    """A graph's share of the total loss, and of the gradient at the weights that it affects."""

    loss: float
    gradient: float


def shares(
    loss: Tensor, found: Regularised, names: Sequence[str], trunk: Sequence[Tensor]
) -> dict[str, Share]:
    """Return each graph's share of the loss and of the gradient.

    Parameters
    ----------
    loss
        The rest of the loss: the model's objective.
    found
        The graphs' loss of the same step, not yet differentiated.
    names
        Names of the graphs.
    trunk
        Tensors at which gradients are measured: the weights of queries and keys.
    """
    parts = [loss, *found.each]
    sizes = [_size(part, trunk) for part in parts]
    values = [abs(float(part.detach())) for part in parts]
    every, push = max(sum(values), 1e-30), max(sum(sizes), 1e-30)
    return {
        name: Share(value / every, size / push)
        for name, value, size in zip(names, values[1:], sizes[1:], strict=True)
    }


def _size(part: Tensor, trunk: Sequence[Tensor]) -> float:
    if not part.requires_grad:
        return 0.0
    found = torch.autograd.grad(part, trunk, retain_graph=True, allow_unused=True)
    squares = [float(g.detach().double().square().sum()) for g in found if g is not None]
    return float(sum(squares) ** 0.5)


def metrics_of(found: Mapping[str, Share]) -> dict[str, float]:
    """Return the shares by the names of their metrics."""
    loss_shares = {f"loss_share_{name}": one.loss for name, one in found.items()}
    return loss_shares | {f"gradient_share_{name}": one.gradient for name, one in found.items()}


def warned(found: Mapping[str, Share], warn: Callable[[str], None]) -> bool:
    """Warn if one graph, or all, are more than half of the loss or of its gradient.

    Returns whether there was a warning.
    """
    loss, gradient = (sum(getattr(one, k) for one in found.values()) for k in ("loss", "gradient"))
    if loss <= MOST and gradient <= MOST:
        return False
    worst = max(found, key=lambda name: max(found[name].loss, found[name].gradient))
    warn(
        f"graphs are {loss:.0%} of the loss and {gradient:.0%} of its gradient, {worst} most: "
        "the model learns more from the graphs than from the data; use a smaller --graph-loss"
    )
    return True
