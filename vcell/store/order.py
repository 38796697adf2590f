"""The order of cells: plans that are pure functions of (seed, epoch, rank).

A plan gives, for an epoch and a rank, the cells of each *buffer* in order; batches are consecutive
slices of buffers. Nothing is drawn during reading, so a position in an epoch is two numbers, and a
resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Rank of this process and number of processes, which share the work."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not one of {self.world_size} processes")

    def share(self, n: int) -> tuple[int, int]:
        """Return this rank's half-open range of `n` items; the ranges of all ranks cover all."""
        return self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size


class Epoch(ABC):
    """One pass of one rank: how many batches, and the cells of each buffer of batches."""

    #: Rows of each batch except perhaps the last.
    batch_rows: int
    #: Batches of each buffer except perhaps the last.
    buffer_batches: int
    n_rows: int

    @property
    def n_batches(self) -> int:
        """Batches of this rank in this epoch."""
        return -(-self.n_rows // self.batch_rows)

    @property
    def n_buffers(self) -> int:
        """Buffers of this rank in this epoch."""
        return -(-self.n_batches // self.buffer_batches)

    @abstractmethod
    def rows(self, buffer: int) -> Rows:
        """Return the cells of a buffer, in the order in which batches take them."""

    def _range(self, buffer: int) -> tuple[int, int]:
        size = self.batch_rows * self.buffer_batches
        return buffer * size, min((buffer + 1) * size, self.n_rows)


class Order(ABC):
    """A way of drawing cells."""

    @abstractmethod
    def epoch(self, number: int, place: Partition, n_cells: int) -> Epoch:
        """Plan one epoch of a matrix of `n_cells` cells."""

    @abstractmethod
    def describe(self, n_cells: int) -> str:
        """Describe how random this order is, in one sentence."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Return the settings on which the meaning of a saved position depends."""


@dataclass(frozen=True, kw_only=True)
class Shuffled(Order):
    """Each cell once per epoch.

    Parameters
    ----------
    batch_size
        Cells of a batch.
    seed
        Seed of all draws.
    shuffle
        ``"block"``: runs of `block` neighbouring cells are drawn at random into a buffer of
        `buffer` cells, which is shuffled. ``"full"``: every cell is drawn by itself. ``"none"``:
        the order of the file.
    block, buffer
        Cells of a run and of a buffer.
    drop_last
        Leave out the last, short batch, so that all ranks have the same number of full batches.
    rows
        The cells to use (default: all), ascending.
    """

    batch_size: int
    seed: int = 0
    shuffle: Literal["block", "full", "none"] = "block"
    block: int = 256
    buffer: int = 16_384
    drop_last: bool = False
    rows: Rows | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.block < 1 or self.buffer < 1:
            raise ValueError("batch_size, block and buffer must be at least 1")

    def epoch(self, number: int, place: Partition, n_cells: int) -> Epoch:
        """Plan one epoch."""
        n = n_cells if self.rows is None else len(self.rows)
        return _ShuffledEpoch(self, number, place, n)

    def describe(self, n_cells: int) -> str:
        """Describe the order."""
        n = n_cells if self.rows is None else len(self.rows)
        if self.shuffle == "none":
            return f"{n:,} cells in the order of the file"
        if self.shuffle == "full":
            return f"{n:,} cells, each drawn by itself"
        buffer = min(self._buffer_batches() * self.batch_size, n)
        return (
            f"{n:,} cells in blocks of {min(self.block, n)}; "
            f"batches of {self.batch_size} are drawn from {-(-buffer // self.block)} random blocks "
            f"({buffer:,} cells) at a time"
        )

    def key(self) -> dict[str, Any]:
        """Return the settings on which a saved position depends."""
        return {
            "order": "shuffled",
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "block": self.block,
            "buffer": self.buffer,
            "drop_last": self.drop_last,
            "rows": _digest(self.rows),
        }

    def _buffer_batches(self) -> int:
        return max(self.buffer // self.batch_size, 1)


class _ShuffledEpoch(Epoch):
    def __init__(self, order: Shuffled, number: int, place: Partition, n: int) -> None:
        self._order, self._number = order, number
        self.batch_rows = order.batch_size
        self.buffer_batches = order._buffer_batches()
        block = {"block": order.block, "full": 1, "none": max(n, 1)}[order.shuffle]
        starts = np.arange(0, n, block, dtype=np.int64)
        if order.shuffle != "none":
            starts = _rng(order.seed, number).permutation(starts)
        self._starts = starts
        self._block = block
        sizes = np.minimum(starts + block, n) - starts
        self._ends = np.cumsum(sizes)  # positions in the epoch's sequence of all ranks
        self._first, last = place.share(n)
        self.n_rows = last - self._first
        if order.drop_last:
            self.n_rows = n // place.world_size // order.batch_size * order.batch_size
        self._rank = place.rank

    def rows(self, buffer: int) -> Rows:
        """Cells at the buffer's positions in the sequence of blocks, shuffled."""
        a, b = (self._first + x for x in self._range(buffer))
        positions = np.arange(a, b, dtype=np.int64)
        block = np.searchsorted(self._ends, positions, side="right")
        begin = self._ends[block] - np.minimum(self._block, self._sizes(block))
        rows = self._starts[block] + positions - begin
        if self._order.shuffle == "block":
            rng = _rng(self._order.seed, self._number, self._rank, buffer)
            rows = rng.permutation(rows)
        return rows if self._order.rows is None else self._order.rows[rows]

    def _sizes(self, block: Rows) -> Rows:
        previous = np.where(block > 0, self._ends[block - 1], 0)
        return self._ends[block] - previous


@dataclass(frozen=True, kw_only=True)
class Weighted(Order):
    """Cells drawn with replacement by weight; an epoch has as many draws as cells.

    Parameters
    ----------
    weights
        One non-negative number per cell. `balanced` makes weights for equally frequent labels.
    """

    weights: NDArray[np.float64]
    batch_size: int
    seed: int = 0
    buffer: int = 16_384
    drop_last: bool = False

    def epoch(self, number: int, place: Partition, n_cells: int) -> Epoch:
        """Plan one epoch."""
        if len(self.weights) != n_cells:
            raise ValueError(f"{len(self.weights)} weights for {n_cells} cells")
        return _WeightedEpoch(self, number, place)

    def describe(self, n_cells: int) -> str:
        """Describe the order."""
        return f"{n_cells:,} draws with replacement, by weight"

    def key(self) -> dict[str, Any]:
        """Return the settings on which a saved position depends."""
        return {
            "order": "weighted",
            "batch_size": self.batch_size,
            "seed": self.seed,
            "buffer": self.buffer,
            "drop_last": self.drop_last,
            "weights": _digest(self.weights),
        }


class _WeightedEpoch(Epoch):
    def __init__(self, order: Weighted, number: int, place: Partition) -> None:
        self.batch_rows = order.batch_size
        self.buffer_batches = max(order.buffer // order.batch_size, 1)
        n = len(order.weights)
        a, b = place.share(n)
        self.n_rows = b - a
        if order.drop_last:
            self.n_rows = n // place.world_size // order.batch_size * order.batch_size
        total = np.cumsum(np.asarray(order.weights, np.float64))
        if not (np.isfinite(total).all() and (order.weights >= 0).all() and total[-1] > 0):
            raise ValueError("weights must be finite and non-negative, and not all zero")
        self._cumulative = total / total[-1]
        self._last = int(np.flatnonzero(order.weights)[-1])
        self._key = (order.seed, number, place.rank)

    def rows(self, buffer: int) -> Rows:
        """Draw a buffer."""
        a, b = self._range(buffer)
        uniform = _rng(*self._key, buffer).random(b - a)
        drawn = np.searchsorted(self._cumulative, uniform, side="right")
        return np.minimum(drawn, self._last).astype(np.int64)


def balanced(codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return weights for equally likely labels; cells without a label (-1) get 0."""
    codes = np.asarray(codes)
    counts = np.bincount(codes[codes >= 0])
    weights = np.zeros(len(codes))
    weights[codes >= 0] = 1.0 / counts[codes[codes >= 0]]
    return weights


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _digest(array: NDArray[Any] | None) -> str | None:
    if array is None:
        return None
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()
