"""Batches of cells for training: shuffled, matched or weighted, read ahead, resumable.

>>> loader = Loader(Store.open("cells.zarr"), Shuffled(batch_size=4096, seed=1), Output(dense=True))
>>> for batch in loader:                 # one epoch; the next `for` is the next epoch
...     step(batch.x, batch.labels["perturbation"])

While a buffer's batches are consumed the next buffer is read and decoded on other threads, also
across epochs; `iter(loader)` starts the first. A batch stays valid for as long as you hold a
reference to it; memory of released batches is reused.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from vcell import console, memory
from vcell.data.buffers import Buffers
from vcell.errors import UserError
from vcell.store.batch import Batch, Output, Waiting
from vcell.store.batching import BatchFactory
from vcell.store.cells import Cells, StoreCells, load_all
from vcell.store.feed import BufferPool, Feed, Plans
from vcell.store.order import Epoch, Order, Partition
from vcell.store.priority_pool import default_threads
from vcell.store.sets import Sets
from vcell.store.sources import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.store.cells import Opened
    from vcell.store.store import Store

#: A store that takes at most this share of the free memory is loaded completely.
_RESIDENT_SHARE = 0.25
#: Arrays of batches and buffers kept for reuse.
_HELD = 64


@dataclass
class _Position:
    epoch: int = 0
    batch: int = 0


class Loader:
    """Iterate over batches of cells, one epoch for each `for` loop.

    Parameters
    ----------
    cells
        A `Store`, a path to a store or to an h5ad/zarr file, an open `vcell.data` source, an
        AnnData, or a scipy CSR matrix.
    order
        `Shuffled`, `Weighted` or `Sets`.
    output
        The format of the batches; CSR by default.
    place
        Rank of this process and number of processes (`Partition`), which together see each cell
        once; by default a single process.
    resident
        Keep the whole store decoded in memory. ``"auto"``: if it takes at most a quarter of the
        free memory.
    threads, prefetch
        Number of threads that read and decode, and minimum number of batches made in advance.
    """

    def __init__(
        self,
        cells: Any,
        order: Order,
        output: Output | None = None,
        *,
        place: Partition | None = None,
        resident: bool | Literal["auto"] = "auto",
        threads: int | None = None,
        prefetch: int = 1,
    ) -> None:
        self.order = order
        self.output = output or Output()
        self.place = place or Partition()
        self.waiting = Waiting()
        threads = threads or default_threads()
        self._prefetch = prefetch
        self._position = _Position()
        source = open_source(cells)
        self.n_cells = source.n_cells
        column = _columns(source, self.output)
        self.n_genes = source.n_genes if column is None else int(column.max()) + 1
        self._labels = {name: source.codes(name) for name in self.output.labels}
        factory = BatchFactory(
            cells=_place_in_memory(source, order, resident=resident, threads=threads),
            output=self.output,
            column=column,
            labels={name: codes for name, (codes, _) in self._labels.items()},
            scale=source.scale() if self.output.log1p else None,
            n_genes=self.n_genes,
            memory=_memory(pin=self.output.pin),
        )
        self._plans = Plans(order, self.place, self.n_cells)
        self._buffers = BufferPool(factory, self._plans, threads)
        weakref.finalize(self, self._buffers.close)
        console.detail(f"loader: {order.describe(self.n_cells)}")

    # -- the interface of a training loop
    # -------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Yield the remaining batches of the current epoch, then advance to the next epoch."""
        epoch = self._epoch()
        if self._position.batch < epoch.n_batches:
            first_buffer = self._position.batch // epoch.buffer_batches
            self._buffers.want(self._position.epoch, first_buffer)
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        position, n = self._position, self._epoch().n_batches
        # Slices of a buffer cost nothing to make, so none is made in advance.
        ahead = 0 if self._buffers.factory.slices_buffers else self._prefetch
        feed = Feed(self._buffers, position.epoch, position.batch, ahead)
        begun = time.perf_counter()
        try:
            for _ in range(position.batch, n):
                yield self._timed(feed)  # not bound to a name, which would hold its memory
            self._position = _Position(position.epoch + 1, 0)
        finally:
            self.waiting.elapsed += time.perf_counter() - begun
            feed.close()

    def __len__(self) -> int:
        """Return the number of batches of this rank in an epoch."""
        return self._epoch().n_batches

    def categories(self, label: str) -> NDArray[Any]:
        """Return the categories of a label's codes."""
        return self._labels[label][1]

    def state_dict(self) -> dict[str, Any]:
        """Return the position (batches yielded) and what it depends on, in plain JSON types."""
        return {
            "version": 1,
            "epoch": self._position.epoch,
            "batch": self._position.batch,
            "n_cells": self.n_cells,
            "rank": self.place.rank,
            "world_size": self.place.world_size,
            **self.order.key(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch yielded when `state` was taken.

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
        self._position = _Position(state["epoch"], state["batch"])

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of epoch number `epoch`."""
        self._position = _Position(epoch, 0)

    def close(self) -> None:
        """End the threads and close files."""
        self._buffers.close()
        self._buffers.factory.cells.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _timed(self, feed: Feed) -> Batch:
        begun = time.perf_counter()
        batch = feed.next()
        self.waiting.waited += time.perf_counter() - begun
        self.waiting.batches += 1
        self._position.batch += 1
        return batch

    def _epoch(self) -> Epoch:
        return self._plans.epoch(self._position.epoch)


def _columns(source: Opened, output: Output) -> NDArray[np.int32] | None:
    """Return for each gene of the source its column in the output, or -1."""
    if output.genes is None:
        return None
    wanted = source.columns_of(output.genes)
    if len(np.unique(wanted)) != len(wanted) or not len(wanted):
        raise UserError("at least one gene is required, and each only once")
    column = np.full(source.n_genes, -1, np.int32)
    column[wanted] = np.arange(len(wanted), dtype=np.int32)
    return column


def _place_in_memory(
    source: Opened, order: Order, *, resident: bool | Literal["auto"], threads: int
) -> Cells:
    """Decide which part of a store is loaded into memory, and report it."""
    store: Store | None = source.store
    if store is None:
        return source.cells
    limit = _RESIDENT_SHARE * memory.free()
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


def _memory(*, pin: bool) -> Buffers:
    if not pin:
        return Buffers(_HELD, huge=True)
    from vcell.store.device import PageLocked

    return PageLocked()
