"""Batches, from samples to a device.

B samples, at most S perturbed genes per sample, n nodes of all samples together, N genes, R
relations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ProfileBatch:
    """Tensors of a batch.

    Attributes
    ----------
    genes
        (B, S) perturbed genes, -1 after the end of a smaller set.
    nodes
        (n,) genes of the samples' nodes, sample by sample; empty if no nodes are sent.
    sizes
        (B,) number of nodes of each sample.
    edges
        The edges, by kind of strategy: see `vcell_graph_profile.strategies`.
    """

    genes: Tensor
    nodes: Tensor
    sizes: Tensor
    edges: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that are copied to a device."""
        return (self.genes, self.nodes, self.sizes, *self.edges)

    @property
    def nbytes(self) -> int:
        """Bytes that are copied to a device."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    def moved(self, device: torch.device) -> ProfileBatch:
        """Return a copy on the device, also if that is the CPU, so that copying is timed."""
        if device.type == "cpu":
            copied = [t.clone() for t in self.tensors]
        else:
            copied = [t.to(device) for t in self.tensors]
        return ProfileBatch(copied[0], copied[1], copied[2], tuple(copied[3:]))


@dataclass(frozen=True)
class Sample:
    """One sample before collation.

    Attributes
    ----------
    genes
        (S,) perturbed genes.
    parts
        Its other data.
    n_nodes, n_edges
        Numbers of nodes and edges of its graph, as the model uses it.
    """

    genes: NDArray[Any]
    parts: tuple[Any, ...] = ()
    n_nodes: int = 0
    n_edges: int = 0

    @property
    def nbytes(self) -> int:
        """Size of the payload in bytes."""
        return int(self.genes.nbytes + sum(_bytes(part) for part in self.parts))


def _bytes(part: Any) -> int:
    if isinstance(part, list | tuple):
        return sum(_bytes(one) for one in part)
    if isinstance(part, Tensor):
        return part.numel() * part.element_size()
    return int(part.nbytes)


@dataclass(frozen=True)
class Strategy:
    """A way of feeding the graphs to a model.

    Attributes
    ----------
    name, description
        Name of the option's value, and a description.
    sample
        Makes a sample from its perturbed genes (S,).
    collate
        Makes a batch from samples.
    net
        The model that takes it: ``shared``, ``transformer``, ``alive``, ``incident``, ``blocks``,
        ``pairs`` or ``masked``.
    shared_bytes
        Bytes on the device that do not depend on the batch.
    own_graph
        Whether each sample has its own graph.
    reference
        The strategy that it is a reference for; empty for vcell's own.
    same
        Compares a sample with that of another strategy; None if there is nothing to compare.
    """

    name: str
    description: str
    sample: Callable[[NDArray[np.int64]], Sample]
    collate: Callable[[list[Sample]], ProfileBatch]
    net: str
    shared_bytes: int = 0
    own_graph: bool = True
    reference: str = ""


def stacked_genes(samples: list[Sample]) -> Tensor:
    """Return perturbed genes (B, S) as int64."""
    return torch.from_numpy(np.stack([s.genes for s in samples]).astype(np.int64))


def offsets(samples: list[Sample]) -> Tensor:
    """Return numbers of nodes (B,)."""
    return torch.tensor([s.n_nodes for s in samples])


NOTHING = torch.empty(0, dtype=torch.int64)
