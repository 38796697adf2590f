"""The folder in which a store is built: one process at a time, resumable.

``.NAME.preparing/`` holds a lock, a journal (the progress) and the files of the work. A killed
process leaves it; the next one continues. When the store is complete and on disk, it is renamed
into place and the folder is removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from vcell import console
from vcell.outputs.aside import (
    missing_folders,
    remove_empty,
    sync_folder,
    sync_tree,
    write_json,
)
from vcell.store.priority_pool import PriorityPool

#: Seconds of work that may be lost when a run is killed or power fails.
STEP = 10.0


class Workdir:
    """The locked work folder of one store."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.parent / f".{target.name}.preparing"
        self._around = missing_folders(target.parent)
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock, waiting for another process that prepares the same store."""
        waited = False
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.folder / "lock"
            try:
                fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the other process has just finished and cleaned up
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    console.say(f"another process is preparing {self.target}; waiting for it")
                    waited = True
                fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(fd), lock.stat()):
                    self._fd = fd
                    return self
            except FileNotFoundError:
                pass
            os.close(fd)

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)

    def begin(self, key: str) -> BuildJournal:
        """Return the journal of an earlier attempt at this store, or a new, empty one."""
        journal = BuildJournal(self.folder / "journal.json")
        if journal.state.get("key") != key:
            self.empty()
            journal.state = {}
            journal.write(key=key)
        return journal

    def can_continue(self) -> bool:
        """Whether there is recorded progress to go on from."""
        return "next_cell" in _state(self.folder / "journal.json")

    def empty(self) -> None:
        """Remove everything but the lock."""
        for path in self.folder.iterdir():
            if path.name == "lock":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def commit(self, built: Path) -> None:
        """Rename the finished store into place, replacing an existing one, and clean up."""
        sync_tree(built)
        if self.target.exists():
            self.target.rename(self.folder / "replaced")
        built.rename(self.target)
        sync_folder(self.target.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the work folder; a process that waits for its lock notices."""
        shutil.rmtree(self.folder)
        remove_empty(self._around)  # after a failure


class BuildJournal:
    """Progress of the work: a small JSON file that is always valid, and never ahead of the disk.

    Data are flushed to disk first, on a background thread, at most every `STEP` seconds: a killed
    run repeats at most that much work.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = _state(path)
        self._beside = PriorityPool(1)
        self._waiting: list[Future[None]] = []
        self._last = time.monotonic()

    def write(self, **changes: Any) -> None:
        """Change some entries."""
        self.state |= changes
        write_json(self.path, self.state)

    def due(self) -> bool:
        """Whether the next step is due."""
        return time.monotonic() - self._last >= STEP

    def step(self, sync: Callable[[], None], **changes: Any) -> None:
        """Change some entries after `sync` has flushed the data they describe."""
        self.settle()  # at most one step is pending

        def then_write() -> None:
            sync()
            self.write(**changes)

        self.in_background(then_write)
        self._last = time.monotonic()

    def in_background(self, call: Callable[[], None]) -> None:
        """Run a call on the background thread, after those submitted before."""
        self._waiting.append(self._beside.submit(0, call))

    def settle(self) -> None:
        """Wait for the background calls, and raise their errors."""
        while self._waiting:
            self._waiting.pop(0).result()

    def close(self) -> None:
        """Stop the background thread."""
        self._beside.close()


def _state(journal: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(journal.read_text())
    except (OSError, ValueError):
        return {}
    return state
