"""Stages that run once, with digests of their inputs, settings and outputs.

    book = Manifest.open(folder)
    with book.locked():
        book.run(Stage("qc", inputs=[cells], settings={...}, work=...))

``pipeline.json`` is replaced atomically after each stage, and stages write their own files the same
way: a pipeline that was killed and is started again runs only the unfinished stages. A stage is
done as long as its inputs and outputs have the recorded digests and its settings the recorded
values. Digests are cached by size and time of change, so that a large file is read once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcell import console, outputs, signals
from vcell.as_json import plain
from vcell.errors import UserError
from vcell.outputs.aside import missing_folders, remove_empty
from vcell.runs.files import checksum

FILE, _LOCK = "pipeline.json", ".lock"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a pipeline.

    Attributes
    ----------
    name, title
        Its name, and a short description.
    inputs
        The files that it reads.
    settings
        Other values on which its result depends; JSON types.
    work
        Runs it; returns facts to store, and the files that it wrote.
    """

    name: str
    title: str
    inputs: Sequence[Path]
    settings: Mapping[str, Any]
    work: Callable[[], tuple[Mapping[str, Any], Sequence[Path]]] = field(repr=False)


class Manifest:
    """The record of the stages of a pipeline in a folder."""

    def __init__(self, folder: Path, stored: dict[str, Any]) -> None:
        self.folder = folder
        self.stages: dict[str, Any] = stored.get("stages", {})
        self._seen: dict[str, Any] = stored.get("digests", {})

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """Read the manifest; it is empty if the folder has none."""
        path = folder / FILE
        if not path.exists():
            return cls(folder, {})
        try:
            stored = json.loads(path.read_text())
            if not isinstance(stored["stages"], dict) or not isinstance(stored["digests"], dict):
                raise TypeError("it has no stages")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read: {error}", hint="remove it to run every stage again"
            ) from None
        return cls(folder, stored)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against a second pipeline; a kill releases the lock.

        A pipeline that ends before its first stage is done leaves no files.
        """
        lock = self.folder / _LOCK
        new = not (self.folder / FILE).exists()
        around = missing_folders(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(held.fileno()).st_nlink:  # the process that held it has just ended
                    raise BlockingIOError
            except BlockingIOError:
                raise UserError(
                    f"{self.folder}: another pipeline is at work there", hint="wait, or use -o"
                ) from None
            outputs.sweep(self.folder / FILE)
            try:
                yield
            finally:
                if new and not self.stages:
                    with signals.held_back(), suppress(OSError):
                        for path in (self.folder / FILE, lock):
                            path.unlink(missing_ok=True)
                        remove_empty(around)

    def run(self, stage: Stage) -> dict[str, Any]:
        """Run a stage, unless it is done; return its facts."""
        why = self.why(stage)
        if why is None:
            console.say(f"{stage.name}: done before")
            result: dict[str, Any] = self.stages[stage.name]["result"]
            return result
        console.say(f"\n{stage.name}: {stage.title} ({why})")
        self.stages.pop(stage.name, None)
        self._write()
        started = time.monotonic()
        facts, written = stage.work()
        seconds = round(time.monotonic() - started, 1)
        self.stages[stage.name] = plain(
            {
                "title": stage.title, "inputs": self._digests(stage.inputs),
                "settings": dict(stage.settings), "outputs": self._digests(written),
                "seconds": seconds, "result": dict(facts),
            }
        )  # fmt: skip
        self._write()
        console.say(f"{stage.name}: {console.duration(seconds)}")
        return dict(self.stages[stage.name]["result"])

    def why(self, stage: Stage) -> str | None:
        """Return why a stage must run; None if it is done."""
        known = self.stages.get(stage.name)
        if known is None:
            return "not done"
        for path in stage.inputs:
            if not path.exists():
                return f"{path.name} is to be made"
        if known["inputs"] != self._digests(stage.inputs):
            return "what it reads has changed"
        wanted = plain(dict(stage.settings))
        if known["settings"] != wanted:
            keys = {*wanted, *known["settings"]}
            odd = sorted(k for k in keys if wanted.get(k) != known["settings"].get(k))
            return f"changed: {', '.join(odd)}"
        return self._lost(known)

    def _lost(self, known: Mapping[str, Any]) -> str | None:
        for name, digest in known["outputs"].items():
            path = self.folder / name
            if not path.exists():
                return f"{name} is gone"
            if self.digest(path) != digest:
                return f"{name} was changed"
        return None

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, read again only if its size or time has changed."""
        about = path.stat()
        key, mark = str(path.absolute()), [about.st_size, about.st_mtime_ns]
        known = self._seen.get(key)
        if known is None or known[:2] != mark:
            known = self._seen[key] = [*mark, checksum(path)]
        return str(known[2])

    def _digests(self, paths: Sequence[Path]) -> dict[str, str]:
        return {self._name(path): self.digest(path) for path in paths}

    def _name(self, path: Path) -> str:
        """Return a file's path relative to the folder, so that the folder can be moved."""
        try:
            return str(path.resolve().relative_to(self.folder.resolve()))
        except ValueError:
            return str(path.absolute())

    def _write(self) -> None:
        outputs.write_json(
            self.folder / FILE,
            {"made-by": outputs.made_by(), "stages": self.stages, "digests": self._seen},
        )
