"""The networks `transformer`, `dango` and `mlp`. Each predicts the residual of the prior for a set.

The last layer is 0 at first, so that training starts at the prior.
N genes, F features, d width, B sets of at most S genes, K relations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcell import console
from vcell.nn.encoder import Encoder, zero_head
from vcell.nn.graph_loss import GraphLoss, RowGraph
from vcell.nn.presets import Preset
from vcell.nn.wildtype import GeneState, PerturbationHead, SetPooling, WildType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.graph import GeneGraphs
    from vcell_train_graph import TrainGraph
    from vcell_train_graph.problem import GraphProblem

Out = dict[str, Tensor]
_REBUILT = 64  # genes per step whose neighbours `dango` reconstructs


def row_graphs(graphs: GeneGraphs) -> dict[str, RowGraph]:
    """Return every relation with rows scaled to sum 1, and edges in both directions."""
    found = {}
    for relation in graphs:
        both = relation.both()
        found[relation.name] = RowGraph.of(both.indptr, both.indices, both.weights)
    return found


class GeneCodes(nn.Module):
    """A learned embedding of each gene, plus its embedded features."""

    features: Tensor

    def __init__(self, features: np.ndarray, width: int) -> None:
        super().__init__()
        n, f = features.shape
        self.code = nn.Parameter(torch.randn(n, width) * width**-0.5)
        self.register_buffer("features", torch.from_numpy(features).float())
        self.told = nn.Linear(f, width, bias=False) if f else None

    def forward(self) -> Tensor:
        """Return embeddings (N, d)."""
        return self.code if self.told is None else self.code + self.told(self.features)


class WildTypeNetwork(nn.Module):
    """`transformer`: the wild type encoded once per step, from which each set is predicted."""

    def __init__(self, problem: GraphProblem, config: TrainGraph) -> None:
        super().__init__()
        tokens = tokens_of(problem, config)
        self.register_buffer("place", torch.from_numpy(tokens))
        graphs = problem.graphs.onto([problem.genes[i] for i in tokens])
        rows = row_graphs(graphs)
        preset = Preset(
            d_model=config.width, n_layers=config.layers, n_heads=config.heads,
            d_ff=4 * config.width, dropout=config.dropout,
        )  # fmt: skip
        heads = min(len(rows), config.heads)
        if len(rows) > heads:
            console.warn(
                f"{len(rows)} graphs and {console.count(heads, 'head')}: the graph loss follows "
                f"the first {heads}; --heads {len(rows)} has one for each"
            )
        chosen = dict(list(rows.items())[:heads])
        loss = GraphLoss(chosen, config.graph_loss, share=config.graph_rows)
        self.names = tuple(chosen)
        self.codes = GeneCodes(problem.features[tokens], config.width)
        self.wild = WildType(Encoder(preset), loss if chosen and config.graph_loss else None)
        self.read = PerturbationHead(config.width)
        self.together = SetPooling(config.width, config.heads)
        self.out = zero_head(2 * config.width)

    def forward(self, members: Tensor) -> Out:
        """Return the residual (B,), and the loss of the graphs."""
        encoded = self.wild(self.codes())
        there = members >= 0
        kinds = torch.where(there, int(GeneState.ABSENT), 0)
        z = self.read(encoded.states, members, kinds)
        own = F.embedding(members.clamp_min(0), encoded.states)
        both = torch.cat([z, self.together(own, there)], 1)
        found: Out = {"added": self.out(both)[:, 0].float()}
        if encoded.graphs is not None:
            found["graphs"] = encoded.graphs.each
            found["divergence"] = encoded.graphs.divergence
        return found


class Dango(nn.Module):
    """`dango`: two layers of neighbourhood means in each graph, with weights of graphs per gene.

    After DANGO (Zhang, Bafna, Ma and Ma 2020), with all neighbours instead of five drawn ones. Each
    graph's view of a gene must also reconstruct the gene's neighbours, through a separate layer.
    This loss uses some genes per step and is added to that of the values, not trained before it. As
    in DANGO, missing edges weigh a tenth in graphs of co-expression and of experiments, which are
    incomplete.
    """

    def __init__(self, problem: GraphProblem, config: TrainGraph) -> None:
        super().__init__()
        width = config.width
        self.graphs = tuple(row_graphs(problem.graphs).values())
        self.codes = GeneCodes(problem.features, width)
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2)) for _ in self.graphs
        )
        self.attention = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False)
        )
        self.together = SetPooling(width, config.heads)
        self.drop = nn.Dropout(config.dropout)
        self.out = zero_head(width)
        self.weight = config.graph_loss
        self.edges = [relation.both() for relation in problem.graphs]
        self.missing = [
            0.1 if any(word in r.name.lower() for word in ("coexpression", "experimental")) else 1.0
            for r in problem.graphs
        ]
        n = len(problem.genes) if self.weight else 0
        self.told = nn.ModuleList(nn.Linear(width, n) for _ in self.graphs if n)

    def views(self) -> list[Tensor]:
        """Return the view (N, d) of every graph."""
        codes, views = self.codes(), []
        for graph, layers in zip(self.graphs, self.layers, strict=True):
            x = codes
            for layer in layers.children():
                x = F.silu(layer(torch.cat([x, graph.mean(x).to(x.dtype)], 1)))
            views.append(x)
        return views or [codes]

    def rebuilt(self, views: Sequence[Tensor]) -> Tensor:
        """Return the mean squared error (K,) of the reconstruction of some genes' neighbours."""
        n, found = len(views[0]), []
        rows = torch.randint(n, (min(_REBUILT, n),)).tolist()
        for view, tell, both, missing in zip(
            views, self.told, self.edges, self.missing, strict=True
        ):
            near = [
                both.indices[both.indptr[i] : both.indptr[i + 1]].astype(np.int64) for i in rows
            ]
            at = np.concatenate([k * n + one for k, one in enumerate(near)])
            neighbours = torch.zeros(len(rows), n)
            neighbours.view(-1)[torch.from_numpy(at)] = 1.0
            neighbours = neighbours.to(view.device)
            error = (tell(view[rows]).float() - neighbours).square()
            found.append((error * (missing + (1 - missing) * neighbours)).mean())
        return torch.stack(found)

    def states(self, views: Sequence[Tensor]) -> Tensor:
        """Return the gene states (N, d)."""
        stacked = torch.stack(list(views))  # (K, N, d)
        return (torch.softmax(self.attention(stacked), 0) * stacked).sum(0)

    def forward(self, members: Tensor) -> Out:
        """Return the residual (B,), and in training the reconstruction loss of the graphs."""
        views = self.views()
        own = F.embedding(members.clamp_min(0), self.drop(self.states(views)))
        found: Out = {"added": self.out(self.together(own, members >= 0))[:, 0].float()}
        if self.training and self.graphs and self.weight:
            missed = self.rebuilt(views)
            found |= {"graphs": self.weight * missed, "missed": missed.detach()}
        return found


class SetMlp(nn.Module):
    """`mlp`: a perceptron on sums and products of gene embeddings, without graphs."""

    def __init__(self, problem: GraphProblem, config: TrainGraph) -> None:
        super().__init__()
        width = config.width
        self.codes = GeneCodes(problem.features, width)
        self.body = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(2 * width, width), nn.GELU(),
        )  # fmt: skip
        self.out = zero_head(width)

    def forward(self, members: Tensor) -> Out:
        """Return the residual (B,)."""
        there = (members >= 0)[..., None]
        own = F.embedding(members.clamp_min(0), self.codes()) * there
        total = own.sum(1)
        pairs = (total.square() - own.square().sum(1)) / 2
        return {"added": self.out(self.body(torch.cat([total, pairs], 1)))[:, 0].float()}


def tokens_of(problem: GraphProblem, config: TrainGraph) -> np.ndarray:
    """Return the genes to encode: all of the table, then those with the most neighbours."""
    n, most = len(problem.genes), max(config.tokens or len(problem.genes), problem.n_own)
    if most >= n or not problem.graphs.relations:
        return np.arange(problem.n_own if not problem.graphs.relations else n)
    degree = problem.graphs.degree()[problem.n_own :]
    others = problem.n_own + np.argsort(-degree, kind="stable")[: most - problem.n_own]
    return np.concatenate([np.arange(problem.n_own), np.sort(others)])


@dataclass(frozen=True)
class StepModel:
    """A model trained in steps, by name."""

    name: str
    summary: str
    graphs: bool
    network: type[nn.Module]
    takes_steps: bool = True

    def build(self, problem: GraphProblem, config: TrainGraph) -> nn.Module:
        """Build the untrained network."""
        return self.network(problem, config)


transformer = StepModel(
    "transformer",
    "wild type encoded once, heads regularised by the graphs",
    True,  # noqa: FBT003
    WildTypeNetwork,
)
dango = StepModel("dango", "means over neighbours in every graph", True, Dango)  # noqa: FBT003
mlp = StepModel("mlp", "codes of genes and their products, no graph", False, SetMlp)  # noqa: FBT003
