"""Batches on a device: page-locked memory to copy from, and CSR made dense where it is wanted.

A CSR batch of a few thousand non-zeros a cell is five to ten times smaller than its dense form, so
it is cheaper to send it compressed and to scatter it on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.store.batch import Batch
    from vcell.store.store import Store


def pinned(size: int) -> NDArray[np.uint8]:
    """Allocate page-locked memory, from which copies run beside the device's work."""
    if not torch.cuda.is_available():
        raise UserError("page-locked memory needs a CUDA device", hint="leave out Output(pin=True)")
    array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return array


def to_dense(batch: Batch, device: torch.device | str) -> torch.Tensor:
    """Return a batch as float32 (B, N) on a device; CSR is sent as it is and scattered there."""
    if batch.x is not None:
        return torch.from_numpy(batch.x).to(device, non_blocking=True)
    assert batch.indptr is not None
    assert batch.indices is not None
    assert batch.data is not None
    indptr = torch.from_numpy(batch.indptr).to(device, non_blocking=True)
    indices = torch.from_numpy(batch.indices).to(device, non_blocking=True)
    data = torch.from_numpy(batch.data).to(device, non_blocking=True)
    return scatter_rows(indptr, indices, data, batch.n_genes)


def scatter_rows(
    indptr: torch.Tensor, indices: torch.Tensor, data: torch.Tensor, n_genes: int
) -> torch.Tensor:
    """CSR arrays on a device as a dense float32 tensor there."""
    n = len(indptr) - 1
    row = torch.repeat_interleave(torch.arange(n, device=indptr.device), indptr.diff())
    dense = torch.zeros(n * n_genes, dtype=torch.float32, device=data.device)
    dense[row * n_genes + indices.long()] = data.float()
    return dense.view(n, n_genes)


class DeviceMatrix:
    """A whole store in the memory of a device; batches are gathered there."""

    def __init__(self, store: Store, device: torch.device | str) -> None:
        from vcell import console
        from vcell.store.cells import load_all
        from vcell.store.crew import default_threads

        whole = load_all(store, default_threads())
        console.say(
            f"{store.path}: the whole matrix is kept on {device} "
            f"({console.bytes_text(store.nbytes)})"
        )
        self.n_genes = store.n_genes
        self.indptr = torch.from_numpy(whole.indptr).to(device)
        # torch gathers from int16, not from uint16: the bits are the same
        idx = whole.idx.view(np.int16) if whole.idx.dtype == np.uint16 else whole.idx
        self._mask = 0xFFFF if whole.idx.dtype == np.uint16 else -1
        self.idx = torch.from_numpy(idx).to(device)
        wide = whole.val.dtype.itemsize == 2
        val = whole.val.view(np.int16) if wide else whole.val
        self._value_mask = 0xFFFF if wide else None
        if whole.val.dtype == np.uint32:
            val = whole.val.astype(np.float64)
        self.val = torch.from_numpy(val).to(device)

    def dense(self, rows: torch.Tensor) -> torch.Tensor:
        """Return some cells as a dense float32 tensor (B, N)."""
        begin = self.indptr[rows]
        length = self.indptr[rows + 1] - begin
        ends = length.cumsum(0)
        indptr = torch.cat([ends.new_zeros(1), ends])
        first = torch.repeat_interleave(begin - indptr[:-1], length)
        at = torch.arange(int(ends[-1]) if len(ends) else 0, device=rows.device) + first
        val = self.val[at]
        if self._value_mask is not None:
            val = val.int() & self._value_mask
        return scatter_rows(indptr, self.idx[at].int() & self._mask, val, self.n_genes)
