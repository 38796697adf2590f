"""The folder beside a store in which it is being made: one process at a time, resumable.

``.NAME.preparing/`` holds a lock, a journal (what is finished, rewritten aside and renamed after
each step) and the files of the work. A killed process leaves it; the next one continues. When the
store is complete it is renamed into place and the folder goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vcell import console


class Workplace:
    """The locked work folder of one store."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.parent / f".{target.name}.preparing"
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock, waiting for another process that prepares the same store."""
        waited = False
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.folder / "lock"
            try:
                fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the other process has just finished and tidied up
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def begin(self, key: str) -> Journal:
        """Return the journal of an earlier attempt at this store, or a new, empty one."""
        journal = Journal(self.folder / "journal.json")
        if journal.state.get("key") != key:
            self.empty()
            journal = Journal(self.folder / "journal.json")
            journal.write(key=key)
        return journal

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
        """Put the finished store in its place, replacing what is there, and tidy up."""
        if self.target.exists():
            self.target.rename(self.folder / "replaced")
        built.rename(self.target)
        self.remove()

    def remove(self) -> None:
        """Remove the work folder; whoever waits for its lock notices."""
        shutil.rmtree(self.folder)


class Journal:
    """What is finished: a small JSON file that is always whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.state: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.state = {}

    def write(self, **changes: Any) -> None:
        """Change some entries."""
        self.state |= changes
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.state))
        aside.replace(self.path)
