"""Prepare a store and be killed at a given moment: `python killed.py FILE STORE MOMENT`.

A moment is the how-many-th time something is written; 0 is never. Steps are made small, so that
small data have many moments. Prints the number of moments.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partialmethod
from typing import Any

from vcell.data import CellSource
from vcell.store import Recipe, prepare, shards
from vcell.store.build import pipeline, second_pass, workdir


def main(file: str, store: str, moment: int) -> None:
    moments = 0
    one_at_a_time = threading.Lock()  # some things are written beside the work

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*args: Any, **options: Any) -> Any:
            nonlocal moments
            with one_at_a_time:
                moments += 1
                if moments == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return watch

    workdir.STEP = 0  # note every step, however soon it follows
    pipeline.BUCKET = 20_000
    second_pass.CHUNKS_PER_SHARD = 1
    CellSource.chunks = partialmethod(CellSource.chunks, max_nnz=20_000)
    workdir.BuildJournal.write = watched(workdir.BuildJournal.write)
    workdir.Workdir.commit = watched(workdir.Workdir.commit)
    shards.ShardWriter.append = watched(shards.ShardWriter.append)
    shards.ShardWriter.close = watched(shards.ShardWriter.close)
    pipeline.write_tables = watched(pipeline.write_tables)
    pipeline.write_groups = watched(pipeline.write_groups)
    prepare([file], store, Recipe(min_genes=25, min_cells=200))
    print(moments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
