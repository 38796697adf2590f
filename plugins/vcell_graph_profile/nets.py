"""The models that are timed: the same message passing for all, one value per sample.

A layer: ``h_i <- relu(W h_i + sum_r W_r mean of h_j over the j that i receives from in r)``.
B samples, S perturbed genes, N genes, R relations, n nodes, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcell.kernels import neighbour_sums
from vcell.nn.encoder import Encoder
from vcell.nn.presets import Preset
from vcell.nn.wildtype import GeneState, PerturbationHead, SetPooling, WildType

if TYPE_CHECKING:
    from vcell.graph import GeneGraphs
    from vcell_graph_profile.batches import ProfileBatch

gather: Any = neighbour_sums.gather
scatter: Any = neighbour_sums.scatter


@dataclass(frozen=True)
class CsrLayer:
    """Rows (n + 1,), sources (E,), and the first node of each row's sample (n,)."""

    rows: Tensor
    sources: Tensor
    first: Tensor

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return source and target (E,) of every edge."""
        targets = torch.repeat_interleave(self.rows.diff())
        return self.sources.long() + self.first.long()[targets], targets


class _Sums(torch.autograd.Function):
    """Sums over neighbours by vcell's CPU kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, csr: CsrLayer) -> Tensor:
        """Return the sums (n, D)."""
        ctx.csr, ctx.shape = csr, x.shape
        out = x.new_empty(len(csr.rows) - 1, x.shape[1])
        gather(*_arrays(csr), x.detach().contiguous().numpy(), out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of x."""
        dx = grads[0].new_zeros(ctx.shape)
        scatter(*_arrays(ctx.csr), grads[0].contiguous().numpy(), dx.numpy())
        return dx, None


def _arrays(csr: CsrLayer) -> tuple[Any, ...]:
    return csr.rows.numpy(), csr.sources.numpy(), csr.first.numpy()


def sums(x: Tensor, csr: CsrLayer) -> Tensor:
    """Return the sums (n, D) over each row's neighbours: vcell's kernels on a CPU, or torch."""
    if x.device.type == "cpu":
        found: Tensor = _Sums.apply(x, csr)  # type: ignore[no-untyped-call]
        return found
    return pair_sums(x, *csr.pairs())


def pair_sums(x: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return the sums (n, D) as torch-geometric does: the row of every edge is copied, then added.

    The rows of `x` are the targets, too.
    """
    return torch.zeros_like(x).index_add(0, target, x.index_select(0, source))


class GraphNet(nn.Module):
    """Message passing and a head, for every kind of batch; see `Strategy.net`.

    Parameters
    ----------
    graphs
        Shared graphs, once on the device.
    width, layers
        Width and number of layers.
    """

    def __init__(self, graphs: GeneGraphs, width: int, layers: int, net: str) -> None:
        super().__init__()
        self.net, self.n_genes, self.width = net, graphs.n_genes, width
        n_relations = len(graphs.relations)
        self.embedding = nn.Embedding(graphs.n_genes, width)
        self.perturbed = nn.Parameter(torch.randn(width) * width**-0.5)
        if net == "transformer":
            preset = Preset(
                d_model=width, n_layers=layers, n_heads=4, d_ff=4 * width, dropout=0.0
            )  # fmt: skip
            self.wild = WildType(Encoder(preset))
            self.read = PerturbationHead(width)
        else:
            self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
            self.per = nn.ModuleList(
                nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(n_relations))
                for _ in range(layers)
            )
        if net == "shared":
            self.pool = SetPooling(width)
        self.head = nn.Linear(width if net in ("shared", "transformer") else 2 * width, 1)
        self._n_relations = n_relations
        if net in ("shared", "alive", "incident"):
            zeros = torch.zeros(graphs.n_genes, dtype=torch.int32)
            for r, relation in enumerate(graphs):
                self.register_buffer(f"rows{r}", torch.from_numpy(relation.indptr.copy()))
                self.register_buffer(f"sources{r}", torch.from_numpy(relation.indices.copy()))
            self.register_buffer("zeros", zeros)

    def graph(self, r: int) -> CsrLayer:
        """Return a shared relation."""
        rows, sources = self.get_buffer(f"rows{r}"), self.get_buffer(f"sources{r}")
        return CsrLayer(rows, sources, self.get_buffer("zeros"))

    def forward(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        """Return predictions (B,) and the latents (nodes, D) of the last layer."""
        found: tuple[Tensor, Tensor] = getattr(self, f"_{self.net}")(batch)
        return found

    def _transformer(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        states = self.wild(self.embedding.weight).states
        kinds = torch.full_like(batch.genes, int(GeneState.ABSENT))
        return self.head(self.read(states, batch.genes, kinds))[:, 0], states

    def _shared(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        graphs = [self.graph(r) for r in range(self._n_relations)]
        degrees = [g.rows.diff()[:, None] for g in graphs]
        h = self.embedding.weight
        for layer in range(len(self.own)):
            h = self._layer(layer, h, [sums(h, g) for g in graphs], degrees)
        there = batch.genes >= 0
        rows = nn.functional.embedding(batch.genes.clamp_min(0), h)
        return self.head(self.pool(rows, there))[:, 0], h

    def _alive(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        """Mask the perturbed genes of B samples at once: x is (N, B D), masked per sample."""
        alive = self._mask(batch)
        graphs = [self.graph(r) for r in range(self._n_relations)]
        degrees = [sums(alive, g) for g in graphs]
        h = self._spread(batch)
        for layer in range(len(self.own)):
            masked = (h * alive[..., None]).flatten(1)
            h = self._layer(
                layer, h, [sums(masked, g).view_as(h) for g in graphs],
                [d[..., None] for d in degrees],
            )  # fmt: skip
        return self._read(batch, h, alive)

    def _incident(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        """Subtract the edges listed by each sample from the sums over the whole graph."""
        alive = self._mask(batch)
        size = len(batch.genes)
        graphs = [self.graph(r) for r in range(self._n_relations)]
        removed = []
        for r, graph in enumerate(graphs):
            place, sample = batch.edges[2 * r].long(), batch.edges[2 * r + 1].long()
            source = graph.sources.long()[place]
            target = torch.searchsorted(graph.rows, place, right=True) - 1
            removed.append((source * size + sample, target * size + sample))
        degrees = []
        for graph, (_, target) in zip(graphs, removed, strict=True):
            full = graph.rows.diff()[:, None].expand(-1, size).flatten().to(self.perturbed.dtype)
            degrees.append(full.index_add(0, target, -torch.ones_like(target, dtype=full.dtype)))
        h = self._spread(batch)
        for layer in range(len(self.own)):
            flat = h.reshape(-1, self.width)
            found = []
            for graph, (source, target) in zip(graphs, removed, strict=True):
                full = sums(h.flatten(1), graph).view_as(flat)
                found.append(full.index_add(0, target, -flat.index_select(0, source)).view_as(h))
            h = self._layer(
                layer, h, found, [d.view(-1, size)[..., None].clamp_min(0) for d in degrees]
            )  # fmt: skip
        return self._read(batch, h, alive)

    def _blocks(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        sizes = batch.sizes
        sample = torch.repeat_interleave(sizes)
        first = (sizes.cumsum(0) - sizes)[sample].int()
        graphs = [
            CsrLayer(batch.edges[2 * r], batch.edges[2 * r + 1], first)
            for r in range(self._n_relations)
        ]
        degrees = [g.rows.diff()[:, None] for g in graphs]
        h = self._nodes(batch, sample)
        for layer in range(len(self.own)):
            h = self._layer(layer, h, [sums(h, g) for g in graphs], degrees)
        return self._pooled(batch, h, sample)

    def _pairs(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        sample = torch.repeat_interleave(batch.sizes)
        h = self._nodes(batch, sample)
        return self._pooled(batch, self._passed(h, list(batch.edges)), sample)

    def _masked(self, batch: ProfileBatch) -> tuple[Tensor, Tensor]:
        """Use the remaining edges of B copies of the whole graph."""
        size = len(batch.genes)
        edges = [batch.edges[2 * r][:, batch.edges[2 * r + 1]] for r in range(self._n_relations)]
        h = self._spread(batch).transpose(0, 1).reshape(-1, self.width)
        h = self._passed(h, edges).view(size, -1, self.width).transpose(0, 1)
        return self._read(batch, h, self._mask(batch))

    def _passed(self, h: Tensor, edges: list[Tensor]) -> Tensor:
        degrees = [
            h.new_zeros(len(h), 1).index_add(0, e[1], h.new_ones(e.shape[1], 1)) for e in edges
        ]
        for layer in range(len(self.own)):
            h = self._layer(layer, h, [pair_sums(h, e[0], e[1]) for e in edges], degrees)
        return h

    def _layer(self, layer: int, h: Tensor, found: list[Tensor], degrees: list[Tensor]) -> Tensor:
        out = self.own[layer](h)
        per: Any = self.per[layer]
        for linear, total, degree in zip(per, found, degrees, strict=True):
            out = out + linear(total / degree.clamp_min(1))
        return torch.relu(out)

    def _mask(self, batch: ProfileBatch) -> Tensor:
        """Return (N, B): 0 if a gene is perturbed, else 1."""
        alive = self.perturbed.new_ones(self.n_genes + 1, len(batch.genes)).detach()
        columns = torch.arange(len(batch.genes), device=batch.genes.device)[:, None]
        alive[batch.genes, columns] = 0  # -1, no gene, is the extra last row
        return alive[:-1].contiguous()

    def _spread(self, batch: ProfileBatch) -> Tensor:
        weight: Tensor = self.embedding.weight
        return weight[:, None].expand(-1, len(batch.genes), -1)

    def _nodes(self, batch: ProfileBatch, sample: Tensor) -> Tensor:
        """Return embeddings (n, D) with the perturbed genes marked."""
        nodes = batch.nodes.long()
        perturbed = (batch.genes[sample] == nodes[:, None]).any(1, keepdim=True)
        found: Tensor = self.embedding(nodes) + perturbed * self.perturbed
        return found

    def _read(self, batch: ProfileBatch, h: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        pooled = torch.einsum("nb,nbd->bd", alive, h) / alive.sum(0)[:, None].clamp_min(1)
        return self._predict(batch, pooled), h[:, 0]

    def _pooled(self, batch: ProfileBatch, h: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        total = h.new_zeros(len(batch.genes), self.width)
        pooled = total.index_add(0, sample, h) / batch.sizes[:, None].clamp_min(1)
        return self._predict(batch, pooled), h[: int(batch.sizes[0])]

    def _predict(self, batch: ProfileBatch, pooled: Tensor) -> Tensor:
        there = (batch.genes >= 0)[..., None]
        rows = nn.functional.embedding(batch.genes.clamp_min(0), self.embedding.weight) * there
        found: Tensor = self.head(torch.cat([pooled, rows.sum(1)], 1))[:, 0]
        return found


def alike(latents: Tensor, seed: int) -> float:
    """Return the mean cosine of random pairs of latents: at 1 all genes have the same latent."""
    draw = torch.Generator().manual_seed(seed)
    one, other = torch.randint(len(latents), (2, 4096), generator=draw).to(latents.device)
    valid = one != other
    found = nn.functional.cosine_similarity(latents[one[valid]], latents[other[valid]])
    return float(found.mean()) if bool(valid.any()) else 1.0
