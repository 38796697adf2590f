"""The shards of a store's matrix: chunks that threads compress, written in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vcell.outputs.aside import sync_file
from vcell.store.shards import ShardWriter

if TYPE_CHECKING:
    from vcell.store.build.workdir import BuildJournal
    from vcell.store.priority_pool import PriorityPool

#: Chunks of column ids and of values, compressed.
Coded = list[tuple[bytes, bytes]]
#: Calls that may be waiting or running.
_AHEAD = 32


class ShardStream:
    """Writes compressed chunks into shards.

    Parameters
    ----------
    folder
        The store.
    journal
        Flushes finished shards to disk in the background.
    per_shard
        Chunks of a shard.
    pool
        The threads that compress.
    """

    def __init__(
        self,
        folder: Path,
        journal: BuildJournal,
        per_shard: int,
        pool: PriorityPool,
    ) -> None:
        self.folder, self.journal, self.per_shard = folder, journal, per_shard
        self.pool, self.shard = pool, 0
        #: Called when a shard is complete.
        self.on_shard: Callable[[], None] = lambda: None
        self._coded: deque[Future[Coded]] = deque()
        self._writers: list[ShardWriter] = []
        self._in_shard = 0

    def submit(self, compress: Callable[[], Coded]) -> None:
        """Have the next chunks compressed, and write those that are."""
        self._coded.append(self.pool.submit(0, compress))
        while len(self._coded) > _AHEAD or (self._coded and self._coded[0].done()):
            self._write()

    def finish(self) -> None:
        """Write what is left; the last shard may be shorter."""
        while self._coded:
            self._write()
        if self._writers:
            self._close_shard()

    def close(self) -> None:
        """Stop the threads, and drop an unfinished shard."""
        self.pool.close()
        for writer in self._writers:
            writer.abandon()

    def _write(self) -> None:
        for chunk in self._coded.popleft().result():
            if not self._writers:
                x = self.folder / "X"
                self._writers = [
                    ShardWriter(x / name / "c" / str(self.shard), self.per_shard)
                    for name in ("indices", "data")
                ]
            for writer, coded in zip(self._writers, chunk, strict=True):
                writer.append(coded)
            self._in_shard += 1
            if self._in_shard == self.per_shard:
                self._close_shard()

    def _close_shard(self) -> None:
        for writer in self._writers:
            writer.close()
            self.journal.in_background(partial(sync_file, writer.path))
        self._writers = []
        self._in_shard = 0
        self.shard += 1
        self.on_shard()
