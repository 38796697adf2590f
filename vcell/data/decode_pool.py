"""The threads that read and decode chunks: one small pool per process.

Plain threads suffice: reading and decoding release the GIL. The pool is recreated after a fork,
which copies the object but not its threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vcell.cores import cores

Task = Callable[[], None]
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def threads() -> int:
    """Return the number of threads: one per core of this process, at most eight."""
    return cores(8)


def start(tasks: Sequence[Task]) -> list[Future[None]]:
    """Submit tasks to the pool."""
    with _lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            _pools.clear()
            pool = _pools[os.getpid()] = ThreadPoolExecutor(threads(), "vcell-read")
    return [pool.submit(task) for task in tasks]


def finish(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, then raise the first error; no task may go on writing into shared arrays."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
