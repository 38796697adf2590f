"""Batches on a device: page-locked memory to copy from, and conversion of CSR to dense.

A CSR batch of a few thousand non-zeros per cell is five to ten times smaller than its dense form,
so it is cheaper to copy the CSR form and convert it on the device.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import torch

from vcell.data.buffers import Buffers
from vcell.gpu.accelerator import KINDS, Accelerator, Cuda, Mark, accelerator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vcell.store.batch import Batch


class PageLocked(Buffers):
    """Page-locked memory, from which copies overlap with the device's work.

    A copy reads its source later, perhaps several batches later, and long after the last reference
    to it is gone. So when nobody refers to an array any more, a mark is put into the device's
    queue, behind every copy submitted so far; once the device has reached the mark, the array is
    reused.
    """

    def __init__(self) -> None:
        super().__init__(keep=None)  # the device may still read arrays without references
        if not torch.cuda.is_available() and KINDS["cuda"] is Cuda:
            Accelerator(torch.device("cpu")).page_locked(0)  # raises a clear error
        # of this thread: the loader's other threads would use the first GPU
        self._device = accelerator("cuda")
        self._marks: dict[int, Mark] = {}

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Return new page-locked bytes."""
        return self._device.page_locked(size)

    def is_read(self, i: int) -> bool:
        """Whether the device has reached the mark behind the array's last copy."""
        _let_go_of_copied()
        if i not in self._marks:
            self._marks[i] = self._device.mark()
        if not self._marks[i].done():
            return False
        del self._marks[i]
        return True


#: Sources of copies on the user's own streams, which a mark in the default stream does not cover.
_copying: deque[tuple[Mark, list[torch.Tensor]]] = deque()
_lock = threading.Lock()


def _let_go_of_copied() -> None:
    with _lock:
        while _copying and _copying[0][0].done():
            _copying.popleft()


def send(batch: Batch, device: torch.device | str) -> tuple[torch.Tensor, ...]:
    """Copy a batch's arrays to a device: (x,) or (indptr, indices, data)."""
    arrays = (batch.x,) if batch.x is not None else (batch.indptr, batch.indices, batch.data)
    sources = [torch.from_numpy(array) for array in arrays]
    to = accelerator(device)
    sent = tuple(to.send(source) for source in sources)
    if to.has_queue:
        _let_go_of_copied()
        _copying.append((to.mark(), sources))
    return sent


def to_dense(batch: Batch, device: torch.device | str) -> torch.Tensor:
    """Return a batch as float32 (B, N) on a device; CSR is sent and then scattered there."""
    if batch.x is not None:
        return send(batch, device)[0]
    indptr, indices, data = send(batch, device)
    return scatter_rows(indptr, indices, data, batch.n_genes)


def scatter_rows(
    indptr: torch.Tensor, indices: torch.Tensor, data: torch.Tensor, n_genes: int
) -> torch.Tensor:
    """Convert CSR arrays on a device to a dense float32 tensor."""
    n = len(indptr) - 1
    row = torch.repeat_interleave(torch.arange(n, device=indptr.device), indptr.diff())
    dense = torch.zeros(n * n_genes, dtype=torch.float32, device=data.device)
    dense[row * n_genes + indices.long()] = data.float()
    return dense.view(n, n_genes)
