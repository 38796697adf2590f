"""Prepare a store and be killed at a given moment: `python killed.py FILE STORE MOMENT [MEMORY]`.

A moment is the how-many-th time something is written; 0 is never. Steps are made small, so that
small data have many moments. Prints the number of moments. MEMORY is how many bytes of cells may be
held in memory: those cannot be continued.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from vcell.store import Recipe, prepare, shards
from vcell.store.build import first_pass, pipeline, second_pass, workdir


def main(file: str, store: str, moment: int, memory: int = 0) -> None:
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
    first_pass.MAX_NNZ = 20_000
    first_pass.MEMORY = memory
    workdir.BuildJournal.write = watched(workdir.BuildJournal.write)
    workdir.Workdir.commit = watched(workdir.Workdir.commit)
    shards.ShardWriter.append = watched(shards.ShardWriter.append)
    shards.ShardWriter.close = watched(shards.ShardWriter.close)
    pipeline.write_tables = watched(pipeline.write_tables)
    pipeline.write_groups = watched(pipeline.write_groups)
    prepare([file], store, Recipe(min_genes=25, min_cells=200))
    print(moments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
