"""Heads of an encoder's first layer that follow gene graphs, and their share of the loss.

The token genes come after the encoder's global tokens; a network that grows in phases has only the
first of them. Each graph has one head, starting with the first.
B sequences, T token genes, K graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vcell import console
from vcell.errors import UserError
from vcell.nn.graph_loss import (
    GraphLoss,
    Regularised,
    RowGraph,
    Share,
    metrics_of,
    shares,
    warned,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from vcell.graph import GeneGraphs
    from vcell.nn.encoder import Encoder

SHARES = "shares"  # key of an example: report the graphs' shares of loss and gradient
AT_ONCE = 16  # examples on which the shares are measured


class GraphHeads:
    """The graphs that heads follow, and their weight in the loss.

    Parameters
    ----------
    graphs
        Graphs over the T token genes, in their order.
    n_heads
        Number of heads of the encoder. If there are more graphs, the first ones are followed.
    weight
        Weight of every graph's mean divergence.

    Attributes
    ----------
    names
        Names of the graphs that are followed.
    """

    def __init__(self, graphs: GeneGraphs, n_heads: int, weight: float) -> None:
        found = [relation.both() for relation in graphs if relation.n_edges]
        if not found:
            raise UserError(
                f"--graph-loss: no edge of {', '.join(graphs.names)} joins two of the "
                f"{graphs.n_genes:,} token genes",
                hint="more --tokens, --genes that the graphs join, or another graph",
            )
        self.graphs, self.weight = found[:n_heads], weight
        self.names = tuple(relation.name for relation in self.graphs)
        self._losses: dict[int, GraphLoss] = {}
        self._warned = False

    def loss(self, n_tokens: int) -> GraphLoss:
        """Return the loss over the first genes; made once per number of genes."""
        if n_tokens not in self._losses:
            rows = {}
            for one in self.graphs:
                valid = torch.arange(one.n_genes) < n_tokens
                whole = RowGraph.of(one.indptr, one.indices, one.weights, valid=valid.numpy())
                rows[one.name] = whole.first(n_tokens)
            self._losses[n_tokens] = GraphLoss(rows, 1.0)
        return self._losses[n_tokens]

    def joined(
        self, losses: Mapping[str, Tensor], far: Tensor, tokens: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the losses, with that of the graphs added to ``total``.

        Parameters
        ----------
        losses
            Losses by name, with ``total``.
        far
            (B, K) divergences from `encoded`.
        tokens
            The encoder's input, to measure shares of the gradient there; None for no shares.
        """
        each = self.weight * far.mean(0)
        total = each.sum()
        found = {**losses, "total": losses["total"] + total, "graphs": total}
        if tokens is None:
            return found
        parts = Regularised(total, each, far.detach().mean(0))
        measured = metrics_of(shares(losses["total"], parts, self.names, [tokens]))
        return found | {name: torch.tensor(value) for name, value in measured.items()}

    def shares(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, float]:
        """Return each graph's share of the loss and of its gradient; warn above one half, once."""
        some = {name: value[:AT_ONCE] for name, value in batch.items()}
        with torch.enable_grad():
            found = model(some | {SHARES: torch.ones(())})
        values = {name: float(value) for name, value in found.items() if "_share_" in name}
        if not self._warned:
            each = {
                name: Share(values[f"loss_share_{name}"], values[f"gradient_share_{name}"])
                for name in self.names
            }
            self._warned = warned(each, console.warn)
        return values


def following(
    graphs: GeneGraphs | None,
    weight: float,
    n_heads: int,
    attention: str,
    tell: Callable[[str], None] | None = None,
) -> GraphHeads | None:
    """Return the heads that follow graphs of the token genes; None without graphs or weight.

    Parameters
    ----------
    attention
        Name of the attention back end.
    tell
        Called with a message about graphs that are not followed.

    Raises
    ------
    UserError
        If attention is not over all genes, or no graph has an edge between them.
    """
    if graphs is None or not weight:
        return None
    if attention not in ("sdpa", "flash", "chunked"):
        raise UserError(
            f"--graph-loss needs attention over all genes, and {attention} is not",
            hint="take --attention auto; sparse follows the graphs by itself",
        )
    heads = GraphHeads(graphs, n_heads, weight)
    left = [name for name in graphs.names if name not in heads.names]
    if left and tell:
        tell(
            f"--graph-loss does not follow {', '.join(left)}: each of {n_heads} heads follows one "
            "graph that joins token genes"
        )
    return heads


def encoded(encoder: Encoder, x: Tensor, heads: GraphHeads | None) -> dict[str, Tensor]:
    """Encode (B, global tokens + T, d) as ``trunk``.

    With heads, also return their divergences, ``graphs`` (B, K), and the input, ``tokens``.
    """
    if heads is None:
        return {"trunk": encoder(x)}
    trunk, far = encoder.regularised(x, heads.loss)
    return {"trunk": trunk, "graphs": far, "tokens": x}
