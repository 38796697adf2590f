"""Sparse batches of cells: CSR rows, and a first layer that takes them.

A sparse batch is a twentieth of its dense form. On a CPU the first layer works on the CSR rows
(`vcell.kernels.sparse_layer`); on a GPU, where a dense product is faster than a gather, the rows
are converted to dense there.
B cells, G genes, H outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from vcell.kernels import sparse_layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 128  # rows per task
_GENES = 1024


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="vcell-nn")


def each(work: Callable[[Any], None], pieces: Iterable[Any]) -> None:
    """Run tasks on as many threads as torch uses; they must not write to the same memory."""
    threads = torch.get_num_threads()
    todo = list(pieces)
    if threads == 1 or len(todo) < 2:
        for piece in todo:
            work(piece)
    else:
        list(_pool(threads).map(work, todo))


def slices(n: int, size: int) -> list[slice]:
    """Split ``range(n)`` into slices of `size`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@dataclass
class CompressedRows:
    """Some cells as CSR, with further tensors per cell; a batch for `vcell.train`.

    Attributes
    ----------
    begin
        (B + 1,) int64: row b is ``begin[b] : begin[b + 1]`` of the next three. It does not start at
        0 if the rows are a slice of others.
    indices, counts, values
        Column numbers (int32, ascending within a row), counts, and the network's input values
        (float32).
    library
        (B,) float32, the sum of each cell's counts.
    n_genes
        Number of columns.
    more
        Further tensors with a row per cell.
    """

    begin: Tensor
    indices: Tensor
    counts: Tensor
    values: Tensor
    library: Tensor
    n_genes: int
    more: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.library)

    def __getitem__(self, part: slice) -> Self:
        rows = range(len(self))[part]
        ends = slice(rows.start, rows.stop + 1)
        more = {name: value[part] for name, value in self.more.items()}
        return type(self)(
            self.begin[ends], self.indices, self.counts, self.values, self.library[part],
            self.n_genes, more,
        )  # fmt: skip

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        more = {name: change(value) for name, value in self.more.items()}
        return type(self)(**changed, n_genes=self.n_genes, more=more)

    def to(self, device: torch.device | str) -> Self:
        """Copy to a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Copy into page-locked memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def row(self) -> Tensor:
        """Return the row of each stored value."""
        n = torch.arange(len(self), device=self.begin.device)
        return torch.repeat_interleave(n, self.begin.diff())

    def stored(self, values: Tensor) -> Tensor:
        """Return the part of `indices`, `counts` or `values` that belongs to these rows."""
        return values[int(self.begin[0]) : int(self.begin[-1])]

    def dense(self, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return (B, G) of `counts` or `values`."""
        part = self.stored(values)
        out = torch.zeros(len(self), self.n_genes, dtype=dtype or part.dtype, device=part.device)
        out[self.row(), self.stored(self.indices).long()] = part.to(out.dtype)
        return out

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Return begin, indices and values as arrays that share memory."""
        return self.begin.numpy(), self.indices.numpy(), self.values.numpy()


class _SparseProduct(torch.autograd.Function):
    """``x @ weight`` on a CPU; the cells get no gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: CompressedRows) -> Tensor:
        ctx.rows, ctx.shape = rows, weight.shape
        out = torch.zeros(len(rows), weight.shape[1])
        begin, indices, values = rows.arrays()
        w, y = weight.detach().numpy(), out.numpy()

        def work(part: slice) -> None:
            ends = begin[part.start : part.stop + 1]
            sparse_layer.forward(ends, indices, values, w, y[part])

        each(work, slices(len(rows), _ROWS))
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        rows: CompressedRows = ctx.rows
        n_genes = ctx.shape[0]
        grad = torch.empty(ctx.shape)
        columns = sparse_layer.by_gene(*rows.arrays(), n_genes)
        dy, out = slope.contiguous().numpy(), grad.numpy()
        each(
            lambda part: sparse_layer.backward(*columns, dy, part.start, part.stop, out),
            slices(n_genes, _GENES),
        )
        return grad, None


class CompressedLinear(nn.Module):
    """A linear layer that takes `CompressedRows`; its weight is gene-major, (G, H)."""

    def __init__(self, n_genes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_genes, width))
        self.bias = nn.Parameter(torch.zeros(width))
        # as in nn.Linear for the average number of inputs of a cell, a tenth of the genes
        bound = 1 / math.sqrt(max(n_genes / 10, 1))
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, rows: CompressedRows) -> Tensor:
        """Return (B, H)."""
        if rows.values.device.type == "cpu":
            product: Tensor = _SparseProduct.apply(self.weight, rows)  # type: ignore[no-untyped-call]
            return product + self.bias
        half = torch.is_autocast_enabled(rows.values.device.type)
        dtype = torch.get_autocast_dtype(rows.values.device.type) if half else self.weight.dtype
        dense = rows.dense(rows.values, dtype)
        return torch.addmm(self.bias.to(dtype), dense, self.weight.to(dtype)).float()
