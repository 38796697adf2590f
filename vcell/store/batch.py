"""The batches of a loader, and their format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True)
class Output:
    """Format of the batches.

    Parameters
    ----------
    dense
        A float32 matrix instead of CSR.
    genes
        Columns by name or number, in this order (default: all). CSR rows keep the order of the
        source.
    log1p
        Scale each cell to the store's target sum and take ``log1p``; otherwise values as stored.
    labels
        obs columns whose codes each batch contains.
    pin
        Page-locked memory (needs torch with CUDA), so that copies to the device overlap with work.
        A batch may be released as soon as its copy was started, on the device's usual stream or by
        `vcell.store.device.send` on any stream: its memory is reused only after the copy.
    own
        Put every batch into newly allocated arrays, so that a stored batch keeps no other memory
        alive. Costs page faults, and for CSR a copy.
    """

    dense: bool = False
    genes: Sequence[str] | NDArray[Any] | None = None
    log1p: bool = False
    labels: tuple[str, ...] = ()
    pin: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        if self.own and self.pin:
            raise ValueError("page-locked memory is reused: `pin` and `own` exclude each other")


@dataclass
class Batch:
    """Some cells; the arrays are valid for as long as you hold a reference to them.

    `rows` are the cells' numbers in the source, `labels` the codes of the requested columns.
    Dense: `x` is (B, N). CSR: `indptr`, `indices`, `data`, and `csr()` wraps them.
    """

    rows: NDArray[np.int64]
    labels: dict[str, NDArray[np.int32]]
    n_genes: int
    x: NDArray[np.float32] | None = None
    indptr: NDArray[np.int64] | None = None
    indices: NDArray[np.int32] | None = None
    data: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def csr(self) -> csr_matrix:
        """Return the rows as a scipy matrix sharing the batch's memory."""
        from scipy.sparse import csr_matrix

        indptr = self.indptr
        assert indptr is not None
        if indptr[-1] < np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)  # scipy would copy the indices to int64 otherwise
        shape = (len(self.rows), self.n_genes)
        return csr_matrix((self.data, self.indices, indptr), shape=shape, copy=False)


@dataclass
class Waiting:
    """Time that the consumer waited for batches, and total time."""

    waited: float = 0.0
    elapsed: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        """Share of the time spent waiting."""
        return self.waited / self.elapsed if self.elapsed else 0.0
