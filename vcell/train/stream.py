"""Batch streams: a seeded shuffle that any number of processes shares, and reading ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vcell.errors import UserError
from vcell.train import batch as batches

if TYPE_CHECKING:
    from vcell.train.task import Batch, Batches, Place


class ShuffledBatches:
    """Endless shuffled batches of `n` examples; the position is one number.

    The examples form one endless sequence, epoch after epoch, each epoch a permutation drawn from
    ``(seed, epoch)``. Step ``s`` takes places ``s * batch_size`` onwards, so that batches are
    always full and may span two epochs; rank ``r`` of ``W`` takes the r-th of ``W`` equal parts.

    Parameters
    ----------
    n
        Number of examples.
    fetch
        Turns an int64 array of example numbers into a batch on the CPU.
    place
        This process.
    batch_size
        Examples per step over all processes.
    seed
        Seed of the permutations.
    """

    def __init__(
        self,
        n: int,
        fetch: Callable[[np.ndarray], Batch],
        *,
        place: Place,
        batch_size: int,
        seed: int,
    ) -> None:
        if n < 1:
            raise UserError("there are no training examples", hint="check the split and filters")
        if batch_size < place.world_size:
            raise UserError(
                f"batch-size {batch_size} is smaller than the {place.world_size} processes",
                hint=f"set batch-size to {place.world_size} or more",
            )
        self.n, self.fetch, self.place = n, fetch, place
        self.batch_size, self.seed = batch_size, seed
        self.seen = 0  # examples handed out since the beginning, over all processes
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __next__(self) -> Batch:
        """Fetch this rank's share of the next global batch."""
        rank, world = self.place.rank, self.place.world_size
        start = self.seen + self.batch_size * rank // world
        stop = self.seen + self.batch_size * (rank + 1) // world
        share = self.fetch(self._numbers(start, stop))
        self.seen += self.batch_size
        return share

    def _numbers(self, start: int, stop: int) -> np.ndarray:
        """Return the examples at places start..stop of the endless sequence."""
        parts = []
        while start < stop:
            epoch, first = divmod(start, self.n)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
            parts.append(self._order[first : first + stop - start])
            start += len(parts[-1])
        return np.concatenate(parts)

    def state_dict(self) -> dict[str, Any]:
        """Return how many examples were returned, and the size of the data."""
        return {"seen": self.seen, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the examples already returned."""
        if state["n"] != self.n:
            raise UserError(
                f"the run was trained on {state['n']} examples, now there are {self.n}",
                hint="resume with the same data and split, or start a new run",
            )
        self.seen = state["seen"]


class ReadAhead:
    """Read the next batches in a thread while the model computes.

    Parameters
    ----------
    source
        The stream to read ahead of; it is read by one thread only.
    depth
        Maximum number of batches held ready.
    pin
        Whether to copy them into page-locked memory (for a GPU).
    """

    def __init__(self, source: Batches, *, depth: int = 2, pin: bool = False) -> None:
        self.source, self.depth, self.pin = source, depth, pin
        self._state = source.state_dict()
        self._start()

    def _start(self) -> None:
        self._ready: queue.Queue[tuple[Batch, dict[str, Any]] | BaseException] = queue.Queue(
            self.depth
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._read, args=(self._ready, self._closing), name="read-ahead", daemon=True
        )
        self._thread.start()

    def _read(self, ready: queue.Queue[Any], closing: threading.Event) -> None:
        failed = False
        while not (failed or closing.is_set()):
            item: Any
            try:
                batch = next(self.source)
                item = (batches.pinned(batch) if self.pin else batch, self.source.state_dict())
            except BaseException as error:  # noqa: BLE001 - raised again in `__next__`
                item, failed = error, True
            while not closing.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue

    def __next__(self) -> Batch:
        """Return the next batch, waiting for it if necessary."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)
            raise item
        batch, self._state = item
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop what was read ahead and continue from `state`."""
        self.close()
        self.source.load_state_dict(state)
        self._state = state
        self._start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
