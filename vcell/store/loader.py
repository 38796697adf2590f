"""Batches of cells for training: shuffled, matched or weighted, read ahead, resumable.

>>> loader = Loader(Store.open("cells.zarr"), Shuffled(batch_size=4096, seed=1), Output(dense=True))
>>> for batch in loader:                 # one epoch; the next `for` is the next epoch
...     step(batch.x, batch.labels["perturbation"])

While a buffer's batches are consumed the next buffer is read and decoded on other threads.
Batches are views of arrays that are used again: one is valid until the next is asked for, unless
`Output(copy=True)`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.kernels import gather
from vcell.store.cells import (
    EMIT,
    Cells,
    Fresh,
    Lying,
    Spare,
    StoreCells,
    Types,
    load_all,
)
from vcell.store.crew import Crew, default_threads
from vcell.store.order import Epoch, Order, Place
from vcell.store.sets import Sets
from vcell.store.sources import open_source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from vcell.store.sources import Opened
    from vcell.store.store import Store

#: A store this much smaller than the free memory is kept in it.
_RESIDENT_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a batch looks like.

    Parameters
    ----------
    dense
        A float32 matrix instead of CSR.
    genes
        The columns, by name or number, in this order (default: all). CSR rows keep the order of
        the source.
    log1p
        Scale each cell to the store's target sum and take ``log1p``; otherwise values as stored.
    labels
        obs columns whose codes come with each batch.
    copy
        New arrays for every batch, for those who keep batches.
    pin
        Page-locked memory (needs torch with CUDA), so that copies to the device overlap with work.
    """

    dense: bool = False
    genes: Sequence[str] | NDArray[Any] | None = None
    log1p: bool = False
    labels: tuple[str, ...] = ()
    copy: bool = False
    pin: bool = False


@dataclass
class Batch:
    """Some cells.

    `rows` are their numbers in the source; `labels` the codes of the columns asked for. Dense:
    `x` is (B, N). CSR: `indptr`, `indices`, `data`, and `csr()` wraps them.
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

        shape = (len(self.rows), self.n_genes)
        indptr = self.indptr
        assert indptr is not None
        if indptr[-1] < np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)  # scipy would copy the indices to int64 otherwise
        return csr_matrix((self.data, self.indices, indptr), shape=shape, copy=False)


@dataclass
class Waiting:
    """How long the consumer waited for batches, of how long it ran."""

    waited: float = 0.0
    elapsed: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        """Share of the time spent waiting."""
        return self.waited / self.elapsed if self.elapsed else 0.0


@dataclass
class _Buffer:
    """A buffer's rows in memory and what goes with them."""

    rows: NDArray[np.int64]
    lying: Lying
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None


@dataclass
class _Position:
    epoch: int = 0
    batch: int = 0


class Loader:
    """Yields the batches of an order, one epoch for each `for` loop.

    Parameters
    ----------
    cells
        A `Store`, a path to a store or to a plain h5ad/zarr file, an open `vcell.data` source, an
        AnnData or a scipy CSR matrix.
    order
        `Shuffled`, `Weighted` or `Sets`.
    output
        What batches look like.
    rank, world_size
        This process and how many there are; together they see each cell once.
    resident
        Keep the whole store decoded in memory: ``"auto"`` if it takes at most a quarter of what
        is free.
    threads, prefetch
        Threads that read and decode, and batches made ahead of the consumer.
    """

    def __init__(
        self,
        cells: Any,
        order: Order,
        output: Output | None = None,
        *,
        place: Place | None = None,
        resident: bool | Literal["auto"] = "auto",
        threads: int | None = None,
        prefetch: int = 2,
    ) -> None:
        self.order = order
        self.output = output or Output()
        self.place = place or Place()
        self.waiting = Waiting()
        self._threads = threads or default_threads()
        self.prefetch = prefetch
        self.position = _Position()
        source = open_source(cells)
        self._source = source
        self.n_cells, self.n_genes_in = source.n_cells, source.n_genes
        self._column = _columns(source, self.output)
        self.n_genes = self.n_genes_in if self._column is None else int(self._column.max()) + 1
        self._labels = {name: source.codes(name) for name in self.output.labels}
        self._scale = source.scale() if self.output.log1p else None
        self._cells = _place_in_memory(source, order, resident=resident, threads=self._threads)
        #: Batches are slices of the buffer: nothing is left to do for them but to log-normalise.
        self.slices_buffers = (
            not self.output.dense and self._column is None and isinstance(self._cells, StoreCells)
        )
        console.detail(f"loader: {order.describe(self.n_cells)}")

    # -- what a training loop needs -------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the current epoch, then move on to the next."""
        epoch = self._epoch()
        crew = Crew(self._threads)
        feeder = Crew(1)
        feed = _Feed(self, epoch, crew, feeder)
        begun = time.perf_counter()
        try:
            for _ in range(self.position.batch, epoch.n_batches):
                asked = time.perf_counter()
                batch = feed.next()
                self.waiting.waited += time.perf_counter() - asked
                self.waiting.batches += 1
                self.position.batch += 1
                yield batch
            self.position = _Position(self.position.epoch + 1, 0)
        finally:
            self.waiting.elapsed += time.perf_counter() - begun
            feeder.close()
            crew.close()

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return self._epoch().n_batches

    def categories(self, label: str) -> NDArray[Any]:
        """Return what the codes of a label mean."""
        return self._labels[label][1]

    def state_dict(self) -> dict[str, Any]:
        """Return the position: batches yielded so far, and what it depends on. Plain JSON types."""
        return {
            "version": 1,
            "epoch": self.position.epoch,
            "batch": self.position.batch,
            "n_cells": self.n_cells,
            "rank": self.place.rank,
            "world_size": self.place.world_size,
            **self.order.key(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch that was yielded last when `state` was taken.

        Raises
        ------
        UserError
            If the state belongs to other data or another order.
        """
        mine = self.state_dict()
        for key in mine.keys() - {"epoch", "batch"}:
            if state.get(key) != mine[key]:
                raise UserError(
                    f"the saved position was made with {key} {state.get(key)!r}, "
                    f"and this loader has {mine[key]!r}",
                    hint="restore with the data and settings of the run that was saved",
                )
        self.position = _Position(state["epoch"], state["batch"])

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.position = _Position(epoch, 0)

    def close(self) -> None:
        """Close files."""
        self._cells.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _epoch(self) -> Epoch:
        return self.order.epoch(self.position.epoch, self.place, self.n_cells)


@dataclass
class _Feed:
    """The pipeline of one epoch: fetch buffers, cut batches, always some ahead."""

    loader: Loader
    epoch: Epoch
    crew: Crew
    feeder: Crew
    _buffers: deque[Future[_Buffer]] = field(default_factory=deque)
    _ahead: deque[Future[Batch]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        out = self.loader.output
        # Batches that are slices of a buffer cost nothing to make, so only one is made ahead.
        self._depth = 1 if self.loader.slices_buffers else self.loader.prefetch + 1
        # Buffers in use: those the batches ahead come from, the current one, the next one.
        n_kept = 2 + -(-(self._depth - 1) // self.epoch.buffer_batches)
        self._kept = [Fresh() if out.copy else Spare() for _ in range(n_kept)]
        self._slots = [Fresh() if out.copy else _spare(pin=out.pin) for _ in range(self._depth)]
        self._next = self.loader.position.batch  # the batch to make next
        self._current: _Buffer | None = None
        self._current_number = -1
        self._fetch_number = self._next // self.epoch.buffer_batches
        self._fetch()

    def next(self) -> Batch:
        """Return the next batch; the memory of the one yielded before may now be written again."""
        while len(self._ahead) < self._depth and self._next < self.epoch.n_batches:
            if not self._begin(must=not self._ahead):
                break
        return self._ahead.popleft().result()

    def _fetch(self) -> None:
        """Begin to fetch the next buffer, on the feeder's thread."""
        if self._fetch_number < self.epoch.n_buffers:
            number = self._fetch_number
            self._buffers.append(self.feeder.submit(0, partial(self._fetch_now, number)))
            self._fetch_number += 1

    def _fetch_now(self, number: int) -> _Buffer:
        loader = self.loader
        rows = self.epoch.rows(number)
        types = Types(np.int32, np.float32) if loader.slices_buffers else Types()
        lying = loader._cells.fetch(rows, types, self._kept[number % len(self._kept)], self.crew)
        labels = {name: codes[rows] for name, (codes, _) in loader._labels.items()}
        scale = None if loader._scale is None else loader._scale[rows]
        return _Buffer(rows, lying, labels, scale)

    def _begin(self, *, must: bool) -> bool:
        """Begin to make the next batch; False if its buffer isn't there and we need not wait."""
        number, within = divmod(self._next, self.epoch.buffer_batches)
        if number != self._current_number:
            if not must and not self._buffers[0].done():
                return False
            self._current = self._buffers.popleft().result()
            self._current_number = number
            self._fetch()
        assert self._current is not None
        a = within * self.epoch.batch_rows
        b = min(a + self.epoch.batch_rows, len(self._current.rows))
        slot = self._slots[self._next % len(self._slots)]
        make = partial(_make_batch, self._current, a, b, slot, self.loader)
        self._ahead.append(self.crew.submit(EMIT, make))
        self._next += 1
        return True


def _make_batch(buffer: _Buffer, a: int, b: int, slot: Spare, loader: Loader) -> Batch:
    """Rows `a:b` of a buffer as a batch."""
    batch = Batch(
        rows=buffer.rows[a:b],
        labels={name: codes[a:b] for name, codes in buffer.labels.items()},
        n_genes=loader.n_genes,
    )
    if loader.output.dense:
        batch.x = _dense(buffer, a, b, slot, loader)
    else:
        batch.indptr, batch.indices, batch.data = _compressed(buffer, a, b, slot, loader)
        if buffer.scale is not None:
            gather.log_normalise(batch.data, batch.indptr, buffer.scale[a:b])
    return batch


def _dense(buffer: _Buffer, a: int, b: int, slot: Spare, loader: Loader) -> NDArray[np.float32]:
    at = buffer.lying
    size = (b - a) * loader.n_genes
    x = slot.array("x", size, np.dtype(np.float32))[:size].reshape(b - a, loader.n_genes)
    if buffer.scale is None and loader._column is None:
        gather.densify(at.idx, at.val, at.src, at.length, a, b, x)
        return x
    column = loader._column
    if column is None:
        column = np.arange(loader.n_genes, dtype=np.int32)
    if buffer.scale is None:
        gather.densify_columns(at.idx, at.val, at.src, at.length, column, a, b, x)
    else:
        gather.densify_log(at.idx, at.val, at.src, at.length, buffer.scale, column, a, b, x)
    return x


def _compressed(
    buffer: _Buffer, a: int, b: int, slot: Spare, loader: Loader
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    at = buffer.lying
    i32, f32 = np.dtype(np.int32), np.dtype(np.float32)
    if loader._column is not None:
        n = gather.count_columns(at.idx, at.src, at.length, loader._column, a, b)
        idx, val = slot.array("idx", n, i32)[:n], slot.array("val", n, f32)[:n]
        indptr = np.empty(b - a + 1, np.int64)
        gather.copy_columns(
            at.idx, at.val, at.src, at.length, loader._column, a, b, idx, val, indptr
        )
        return indptr, idx, val
    indptr = np.concatenate([[0], np.cumsum(at.length[a:b])]).astype(np.int64)
    n = int(indptr[-1])
    if at.contiguous and at.idx.dtype == i32 and at.val.dtype == f32:
        begin = int(at.src[a]) if b > a else 0
        return indptr, at.idx[begin : begin + n], at.val[begin : begin + n]
    idx, val = slot.array("idx", n, i32)[:n], slot.array("val", n, f32)[:n]
    gather.copy_rows(at.idx, at.val, at.src[a:b], at.length[a:b], indptr[:-1], 0, b - a, idx, val)
    return indptr, idx, val


def _columns(source: Opened, output: Output) -> NDArray[np.int32] | None:
    """For each gene of the source its column in the output, or -1."""
    if output.genes is None:
        return None
    wanted = source.columns_of(output.genes)
    if len(np.unique(wanted)) != len(wanted) or not len(wanted):
        raise UserError("the genes asked for must be at least one, and each only once")
    column = np.full(source.n_genes, -1, np.int32)
    column[wanted] = np.arange(len(wanted), dtype=np.int32)
    return column


def _place_in_memory(
    source: Opened, order: Order, *, resident: bool | Literal["auto"], threads: int
) -> Cells:
    """Decide what of a store is kept in memory, and say so."""
    store: Store | None = source.store
    if store is None:
        return source.cells
    limit = _RESIDENT_SHARE * _free_memory()
    if resident is True or (resident == "auto" and store.nbytes <= limit):
        size = console.bytes_text(store.nbytes)
        console.say(f"{store.path}: the whole matrix is kept in memory ({size})")
        return load_all(store, threads)
    if isinstance(order, Sets):
        controls = order.controls()
        per_cell = store.nbytes / max(store.n_cells, 1)
        if per_cell * len(controls) <= limit:
            console.say(f"{store.path}: {len(controls):,} control cells are kept in memory")
            return StoreCells(store, held=controls)
    if getattr(order, "shuffle", "block") == "full":
        console.warn(
            f"{store.path} does not fit in memory: drawing each cell by itself decodes a whole "
            "chunk for nearly every cell; shuffle='block' is many times faster"
        )
    return StoreCells(store)


def _free_memory() -> int:
    """Bytes that this process could still use."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123  # not a file of the user's
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 4 << 30


def _spare(*, pin: bool) -> Spare:
    if not pin:
        return Spare()
    from vcell.store.device import Pinned

    return Pinned()
