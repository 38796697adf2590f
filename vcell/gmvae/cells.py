"""Cells in memory as CSR: a batch is a selection of rows.

The matrix is stored as in the store, two to four bytes per value, a twentieth of its dense form;
shuffling is a permutation of row numbers. Processes on one machine share one copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from vcell.kernels import gather
from vcell.kernels.rows import FALLS, row_faults
from vcell.nn.compressed import CompressedRows
from vcell.store.cells import load_all
from vcell.store.priority_pool import default_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from vcell.store import Store

_FILES = ("indices", "counts", "borders")
_AT_ONCE, _FETCHED = 4096, 1024  # rows


def compressed(
    borders: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.float32],
    n_genes: int,
    target: float,
    **more: Tensor,
) -> CompressedRows:
    """Make a batch from CSR arrays, which it keeps; the network's input is log-normalised.

    Library sizes are sums over the genes given, and values ``log1p(count * target / library)``.
    """
    if row_faults(borders, indices, counts) & FALLS:
        _sort(borders, indices, counts)
    library = row_sums(borders, counts)
    scale = (target / np.where(library > 0, library, target)).astype(np.float32)
    values = counts.copy()
    gather.log_normalise(values, borders, scale)
    return CompressedRows(
        torch.from_numpy(borders), torch.from_numpy(indices), torch.from_numpy(counts),
        torch.from_numpy(values), torch.from_numpy(library.astype(np.float32)), n_genes, more,
    )  # fmt: skip


def row_sums(borders: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of each row, empty ones included, in bounded memory."""
    sums: NDArray[np.float64] = np.empty(len(borders) - 1)
    for start in range(0, len(sums), _AT_ONCE):
        edge = borders[start : start + _AT_ONCE + 1]
        some = np.cumsum(values[edge[0] : edge[-1]], dtype=np.float64)
        total = np.concatenate([[0.0], some])
        sums[start : start + _AT_ONCE] = np.diff(total[edge - edge[0]])
    return sums


def in_pieces(rows: NDArray[np.int64], size: int = _FETCHED) -> Iterator[NDArray[np.int64]]:
    """Yield some rows at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _sort(borders: NDArray[np.int64], indices: NDArray[Any], counts: NDArray[Any]) -> None:
    for a, b in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        order = np.argsort(indices[a:b], kind="stable")
        indices[a:b], counts[a:b] = indices[a:b][order], counts[a:b][order]


class ResidentCells:
    """All cells of a store, as CSR in memory, in batches of any rows.

    Parameters
    ----------
    indices, counts, borders
        CSR in the small types of the store.
    n_genes
        Number of columns.
    target
        Library size that values are scaled to before the logarithm.
    """

    def __init__(
        self,
        indices: NDArray[Any],
        counts: NDArray[Any],
        borders: NDArray[np.int64],
        n_genes: int,
        target: float,
    ) -> None:
        self.indices, self.counts, self.borders = indices, counts, borders
        self.n_genes, self.target = n_genes, target

    @classmethod
    def of(cls, store: Store, target: float) -> Self:
        """Decode a store into memory."""
        whole = load_all(store, default_threads())
        return cls(whole.idx, whole.val, store.indptr, store.n_genes, target)

    def save(self, folder: Path) -> None:
        """Write the arrays, for `shared` in other processes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def shared(cls, folder: Path, n_genes: int, target: float) -> Self:
        """Memory-map arrays from `save`: all processes of a machine use the same memory."""
        indices, counts, borders = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in _FILES)
        return cls(indices, counts, np.asarray(borders), n_genes, target)

    @classmethod
    def made_once(cls, folder: Path, open_store: Callable[[], Store], target: float) -> Self:
        """Decode a store in one process of this machine, and map the arrays in all of them."""
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        with open_store() as store, (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "whole").exists():
                cls.of(store, target).save(folder)
                (folder / "whole").touch()
            return cls.shared(folder, store.n_genes, target)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.borders) - 1

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.indices.nbytes + self.counts.nbytes + self.borders.nbytes)

    def fetch(self, rows: NDArray[np.int64], **more: Tensor) -> CompressedRows:
        """Return some cells as a batch."""
        source = self.borders[rows]
        length = self.borders[rows + 1] - source
        borders = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        indices = np.empty(borders[-1], np.int32)
        counts = np.empty(borders[-1], np.float32)
        gather.copy_rows(
            self.indices, self.counts, source, length, borders[:-1], 0, len(rows), indices, counts
        )
        return compressed(borders, indices, counts, self.n_genes, self.target, **more)

    def library(self) -> NDArray[np.float64]:
        """Return the sum of each cell's counts."""
        return row_sums(self.borders, self.counts)

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each gene's share of all counts of some cells."""
        total = np.zeros(self.n_genes)
        for some in in_pieces(rows):
            batch = self.fetch(some)
            total += np.bincount(batch.indices.numpy(), batch.counts.numpy(), self.n_genes)
        shares: NDArray[np.float64] = total / max(total.sum(), 1)
        return shares


class DeviceCells:
    """All cells of a store on a device, where batches are gathered without the host."""

    def __init__(self, cells: ResidentCells, device: torch.device | str) -> None:
        self.n_genes, self.target = cells.n_genes, cells.target
        self.borders = torch.from_numpy(cells.borders).to(device)
        self.library = torch.from_numpy(cells.library().astype(np.float32)).to(device)
        self._indices, self._index_mask = _signed(cells.indices, device)
        self._counts, self._count_mask = _signed(cells.counts, device)

    def fetch(self, rows: NDArray[np.int64], **more: Tensor) -> CompressedRows:
        """Return some cells as a batch on the device."""
        device = self.borders.device
        at = torch.from_numpy(rows).to(device)
        begin = self.borders[at]
        length = self.borders[at + 1] - begin
        borders = torch.cat([length.new_zeros(1), length.cumsum(0)])
        n = int(borders[-1])
        first = torch.repeat_interleave(begin - borders[:-1], length, output_size=n)
        place = torch.arange(n, device=device) + first
        indices = self._indices[place].int() & self._index_mask
        counts = self._counts[place]
        if self._count_mask:
            counts = counts.int() & self._count_mask
        counts = counts.float()
        library = self.library[at]
        scale = self.target / torch.where(library > 0, library, torch.ones_like(library))
        values = torch.log1p(counts * torch.repeat_interleave(scale, length, output_size=n))
        moved = {name: value.to(device, non_blocking=True) for name, value in more.items()}
        return CompressedRows(borders, indices, counts, values, library, self.n_genes, moved)


def _signed(values: NDArray[Any], device: torch.device | str) -> tuple[Tensor, int]:
    """Copy to a device; 16-bit values as signed, which torch can gather, and a mask to undo it."""
    if values.dtype == np.uint16:
        return torch.from_numpy(values.view(np.int16)).to(device), 0xFFFF
    if values.dtype == np.uint32:
        values = values.astype(np.int64)
    mask = -1 if values.dtype.kind in "iu" else 0
    return torch.from_numpy(np.ascontiguousarray(values)).to(device), mask
